// The row-wise operations of a transformer block, each with its gradient, without autograd.
//
// Every function here and in attention.h, low_rank.h, frozen_matrix.h and routed_lora.h checks its arguments and calls the column of the
// table (table.h) that fits their device and dtype. Arguments are contiguous and on one device where nothing else is said; another shape,
// dtype, layout or device throws kInternal and names the argument.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quiver/backend/activation.h"

namespace quiver::backend {

/// What rms_norm gives: y, and 1 / sqrt(mean(x^2) + epsilon) of each row, [T] in compute_dtype.
struct Normed {
  torch::Tensor y, inverse_rms;
};
/// y = x / sqrt(mean(x^2) + epsilon) * weight  (Zhang & Sennrich 2019, eq. 4). x [T, d], weight [d] of compute_dtype(x), frozen.
/// Computed in float32 (float64 for float64 x), returned in x's dtype.
Normed rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);
/// The gradient of x given that of y; added to `onto` [T, d] if defined.
torch::Tensor rms_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& inverse_rms, const torch::Tensor& onto);

/// What layer_norm gives: y, and the mean and 1 / sqrt(variance + epsilon) of each row, [T] in compute_dtype.
struct LayerNormed {
  torch::Tensor y, mean, inverse_deviation;
};
/// y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias  (Ba et al. 2016, eq. 4), with the population's variance. x [T, d],
/// weight and bias [d] of compute_dtype(x), frozen. Computed and returned as by rms_norm.
LayerNormed layer_norm(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias, double epsilon);
/// The gradient of x given that of y and what layer_norm gave; added to `onto` [T, d] if defined.
torch::Tensor layer_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight, const LayerNormed& normed,
                                  const torch::Tensor& onto);

/// Which way rows are rotated. The gradient of rotated rows is rotated back.
enum class Rotation { kForward, kBack };
/// Rotary position embedding (Su et al. 2021, eq. 34) in the half-split layout of Llama checkpoints: every pair of a head is
/// rotated by the row's angle. x [T, H, D]; cosine and sine [T, n/2] of compute_dtype(x), n <= D: the first n numbers of a head are
/// rotated, in pairs (i, i + n/2), and the others pass. Writes to `out`, which may not be x.
void rotate_into(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, Rotation rotation,
                 const torch::Tensor& out);

/// act(gate) * up  (Shazeer 2020, eq. 5). Same shapes and dtypes; strides may be any.
torch::Tensor gated(Activation activation, const torch::Tensor& gate, const torch::Tensor& up);
struct GatedGradient {
  torch::Tensor gate, up;
};
GatedGradient gated_gradient(Activation activation, const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up);
/// act(x), and the gradient of x given that of the result. Contiguous.
torch::Tensor activated(Activation activation, const torch::Tensor& x);
torch::Tensor activated_gradient(Activation activation, const torch::Tensor& dy, const torch::Tensor& x);
/// Log-sum-exp of each row of logits [N, V], and the index of its largest: [N] in compute_dtype, and int64.
struct LogitsSummary {
  torch::Tensor log_sum_exp, best;
};
LogitsSummary summarize_logits(const torch::Tensor& logits);
/// weight_n * -log softmax(logits_n)[target_n], [N]; leaves weight * (softmax - onehot), the gradient, in `logits`. target [N] int64,
/// weight [N] in compute_dtype.
torch::Tensor cross_entropy_into(torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& weight);

}  // namespace quiver::backend
