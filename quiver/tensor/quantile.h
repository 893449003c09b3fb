// Order statistics of many entries.
#pragma once

#include <torch/types.h>

namespace quiver::tensor {

/// The `quantile`-quantile of |x|, with linear interpolation between neighbours, in float64; entries are compared in
/// float32, or float64 if that is what x holds. O(entries).
/// Throws kUsage unless 0 <= quantile <= 1 and x has an entry and none that is NaN or infinite.
double magnitude_quantile(const torch::Tensor& x, double quantile);

}  // namespace quiver::tensor
