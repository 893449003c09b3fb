// The small products of a LoRA: through r dimensions and back.
#pragma once

#include <torch/types.h>

namespace quiver::backend {

/// z [T, r] = x [T, d] factor^T, in the factor's dtype. factor [r, d] is of compute_dtype(x). Both may have any strides.
torch::Tensor shrink(const torch::Tensor& x, const torch::Tensor& factor);
/// onto + z factor, [T, d] in `dtype`; onto [T, d] of that dtype, or undefined. z [T, r], contiguous, and factor [r, d] are of
/// compute_dtype(dtype). factor and onto may have any strides.
torch::Tensor expand(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype);
/// y += (x a^T) b in place for the rows [begin, end), on the calling thread: x [T, d_in], a [r, d_in], b [r, d_out] and y [T, d_out],
/// float32, contiguous, on the CPU.
void add_low_rank(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const torch::Tensor& a, const torch::Tensor& b,
                  const torch::Tensor& y);
/// z^T x, [r, d] in z's dtype. z [T, r], contiguous, of compute_dtype(x); x [T, d] of any strides.
torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x);

}  // namespace quiver::backend
