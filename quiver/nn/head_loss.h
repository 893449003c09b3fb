// The output head of a language model: losses and scores from hidden states, without the logits of a whole batch.
#pragma once

#include <torch/types.h>

#include "quiver/nn/linear.h"

namespace quiver::nn {

/// From hidden states to logits: with z = linear(hidden) / divisor they are z, or where there is a cap, cap tanh(z / cap).
struct Head {
  Linear linear;
  double divisor = 1;
  double cap = 0;  ///< 0: none

  /// hidden [T, d] -> [T, V], contiguous.
  torch::Tensor logits(const torch::Tensor& hidden) const;
};

/// log softmax(head(hidden_n))[target_n] and whether target_n is the largest logit.
struct TargetScores {
  torch::Tensor log_prob;   ///< [N] float32 (float64 for float64), CPU
  torch::Tensor is_greedy;  ///< [N] bool, CPU
};
TargetScores score_targets(const torch::Tensor& hidden, const Head& head, const torch::Tensor& target);

/// A weighted cross-entropy and its gradient. With a frozen head, the gradient is computed in the same pass over parts of the rows, so
/// that no more than a part of the logits ever exists (Hsu et al. 2024).
struct HeadLoss {
  double loss = 0;         ///< sum_n weight_n * -log softmax(head(hidden_n))[target_n]
  torch::Tensor gradient;  ///< of the loss in hidden, [N, d]
  torch::Tensor terms;     ///< the summands of the loss, [N] float32 (float64 for float64 hidden)
};
/// hidden [N, d] in the head's dtype, head [d] -> [V] frozen; target [N] int64 and weight [N] of any floating dtype, rounded to that of
/// the terms, both on the CPU.
HeadLoss head_loss_and_gradient(const torch::Tensor& hidden, const Head& head, const torch::Tensor& target, const torch::Tensor& weight);

}  // namespace quiver::nn
