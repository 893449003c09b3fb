// The row-wise operations of a Llama block, each with its gradient. On the CPU in float32 and bfloat16 one fused pass
// over memory; elsewhere (float64, CUDA) written out in torch operations, which is also their definition.
#pragma once

#include <torch/types.h>

#include <cstdint>

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
/// hidden [N, d] in the head's dtype, head [V, d] frozen, target [N] int64 and weight [N] of any
/// floating dtype, rounded to that of the loss; both on the CPU.
/// The head being frozen, the gradient of hidden is computed in the forward pass, in chunks of rows, so that no more
/// than a chunk of logits ever exists (Hsu et al. 2024).
torch::Tensor head_loss(const torch::Tensor& hidden, const torch::Tensor& head, const torch::Tensor& target,
                        const torch::Tensor& weight);

/// log softmax(hidden_n head^T)[target_n] and whether target_n is the largest logit.
struct TargetScores {
  torch::Tensor log_prob;   ///< [N] float32 (float64 for float64), CPU
  torch::Tensor is_greedy;  ///< [N] bool, CPU
};
TargetScores score_targets(const torch::Tensor& hidden, const torch::Tensor& head, const torch::Tensor& target);

}  // namespace quiver::nn
