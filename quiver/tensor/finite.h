// Whether all numbers of a tensor are finite, in one pass.
#pragma once

#include <torch/types.h>

namespace quiver::tensor {

/// values.isfinite().all(), which makes four passes and three tensors. One pass over the exponents for contiguous float16, bfloat16,
/// float32 and float64 on the CPU; as libtorch for all else. Serial, so it may be called from any thread.
bool all_finite(const torch::Tensor& values);

}  // namespace quiver::tensor
