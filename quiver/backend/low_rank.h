// The small products of a LoRA: through r dimensions and back. On the CPU in float32 and bfloat16 kernels of one pass over
// memory each, without the overhead of general products; elsewhere torch operations, which are also their definition.
#pragma once

#include <torch/types.h>

namespace quiver::backend {

/// z [T, r] = x [T, d] factor^T, in the factor's dtype. factor [r, d], float32 (float64 for float64 x).
torch::Tensor shrink(const torch::Tensor& x, const torch::Tensor& factor);
/// onto + z factor, [T, d] in `dtype`; onto [T, d] of that dtype, or undefined.
torch::Tensor expand(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype);
/// z^T x, [r, d] in z's dtype.
torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x);

}  // namespace quiver::backend
