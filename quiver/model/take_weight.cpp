#include "quiver/model/take_weight.h"

#include <torch/utils.h>

#include <sstream>

#include "quiver/backend/quantized_matrix.h"
#include "quiver/base/error.h"

namespace quiver::model {

torch::Tensor take_weight(tensor::TensorMap& weights, const std::string& name, torch::IntArrayRef shape) {
  const auto found = weights.find(name);
  if (found == weights.end()) return {};
  const auto& stored = found->second;
  const bool has_blocks = backend::is_blocks(stored) && shape.size() == 2 && stored.size(0) == shape[0] && stored.size(1) * 32 == shape[1];
  if (!has_blocks && !stored.sizes().equals(shape)) {
    std::ostringstream expected;
    expected << shape;
    fail(ErrorKind::kMismatch, "tensor '{}' of the base model is {}; its configuration says {}", name, tensor::describe(found->second),
         expected.str());
  }
  auto weight = std::move(found->second);
  weights.erase(found);
  return weight;
}

}  // namespace quiver::model
