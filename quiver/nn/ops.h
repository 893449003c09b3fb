// The row-wise operations of a Llama block, each with its gradient. On the CPU in float32 and bfloat16 one fused pass
// over memory; elsewhere (float64, CUDA) written out in torch operations, which is also their definition.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quiver/nn/projection.h"

namespace quiver::nn {

/// y = x / sqrt(mean(x^2) + epsilon) * weight  (Zhang & Sennrich 2019, eq. 4). x [T, d], weight [d] float32 and frozen.
/// Computed in float32 (float64 for float64 x), returned in x's dtype.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);

/// Rotary position embedding (Su et al. 2021, eq. 34) in the half-split layout of Llama checkpoints: pair (i, i + D/2)
/// of every head is rotated by the row's angle. x [T, H, D]; cosine and sine [T, D/2] float32.
torch::Tensor rotate(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine);

/// silu(gate) * up  (Shazeer 2020, SwiGLU). Same shapes and dtypes.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

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

// The same and their gradients without autograd, for passes that keep what they need themselves.

/// rms_norm and 1 / sqrt(mean(x^2) + epsilon) of each row, [T].
struct Normed {
  torch::Tensor y, inverse_rms;
};
Normed rms_norm_rows(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);
/// The gradient of x given that of y; added to `onto` [T, d] if defined.
torch::Tensor rms_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& inverse_rms, const torch::Tensor& onto);
/// rotate into `out`, which may not be x. With `back` by the opposite angles: the gradient of x given that of the result.
void rotate_into(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, bool back, torch::Tensor out);
struct SwigluGradient {
  torch::Tensor gate, up;
};
SwigluGradient swiglu_gradient(const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up);
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
