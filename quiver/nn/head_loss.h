// The output head of a language model: losses and scores from hidden states, without the logits of a whole batch.
#pragma once

#include <torch/types.h>

#include "quiver/nn/projection.h"

namespace quiver::nn {

/// sum_n weight_n * -log softmax(hidden_n head^T)[target_n], a float32 scalar (float64 for float64 hidden).
///
/// hidden [N, d] in the head's dtype, head [d] -> [V] frozen, target [N] int64 and weight [N] of any
/// floating dtype, rounded to that of the loss; both on the CPU. Differentiable in hidden.
torch::Tensor head_loss(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target, const torch::Tensor& weight);

/// log softmax(hidden_n head^T)[target_n] and whether target_n is the largest logit.
struct TargetScores {
  torch::Tensor log_prob;   ///< [N] float32 (float64 for float64), CPU
  torch::Tensor is_greedy;  ///< [N] bool, CPU
};
TargetScores score_targets(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target);

/// head_loss and the gradient of hidden [N, d]. The head being frozen, the gradient is computed in the same pass over
/// parts of the rows, so that no more than a part of the logits ever exists (Hsu et al. 2024).
struct HeadLoss {
  double loss = 0;
  torch::Tensor gradient;
  torch::Tensor terms;  ///< what the loss is the sum of, [N] in its dtype
};
HeadLoss head_loss_and_gradient(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target,
                                const torch::Tensor& weight);

}  // namespace quiver::nn
