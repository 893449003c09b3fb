// What a task asks of an adapter's parameters: the diagonal of the Fisher information (pi-tuning, Wu et al. 2023).
#pragma once

#include <span>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/model/model.h"
#include "quiver/tensor/tensor.h"

namespace quiver::train {

/// F[p] = mean over the examples of (d L / d p)^2, L being the example's mean negative log-likelihood per label: one backward pass an
/// example. Tensors "<path>.lora_a" and "<path>.lora_b", float32. Throws kUsage for no examples.
tensor::TensorMap fisher_diagonal(const model::Model& base, const adapters::LoraAdapter& adapter,
                                  std::span<const forest::Sequence> examples);

}  // namespace quiver::train
