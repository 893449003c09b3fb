// Weights by name, let go as they are used.
#pragma once

#include <torch/types.h>

#include <string>

#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// The tensor of this name, taken out of the map; undefined if there is none. A matrix may be in blocks (backend::is_blocks) of the shape's
/// rows and columns. Throws kMismatch, naming both shapes, for another shape.
torch::Tensor take_weight(tensor::TensorMap& weights, const std::string& name, torch::IntArrayRef shape);

}  // namespace quiver::model
