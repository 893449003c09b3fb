#include "quiver/tensor/quantile.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::tensor {
namespace {

/// Reorders the entries.
template <typename T>
double quantile_of(T* begin, std::int64_t count, double quantile) {
  const double position = quantile * static_cast<double>(count - 1);
  const auto below = static_cast<std::int64_t>(position);
  std::nth_element(begin, begin + below, begin + count);
  const double low = begin[below];
  if (below + 1 == count) return low;
  const double high = *std::min_element(begin + below + 1, begin + count);
  return low + (high - low) * (position - static_cast<double>(below));
}

}  // namespace

double magnitude_quantile(const torch::Tensor& x, double quantile) {
  if (!(quantile >= 0 && quantile <= 1)) fail(ErrorKind::kUsage, "{} is not a quantile: it must be in [0, 1]", quantile);
  if (x.numel() == 0) fail(ErrorKind::kUsage, "no entries to take a quantile of");
  const torch::NoGradGuard no_grad;
  // A copy that may be reordered. torch::quantile sorts everything and refuses more than 16 million entries.
  const auto dtype = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  auto magnitudes = x.detach().to(torch::kCPU, dtype).abs().contiguous().view(-1);
  if (!all_finite(magnitudes)) {  // nor may they be sorted
    fail(ErrorKind::kUsage, "entries that are NaN or infinite have no quantile");
  }
  const auto count = magnitudes.numel();
  return dtype == torch::kDouble ? quantile_of(mutable_raw_data<double>(magnitudes, "magnitudes", {count}), count, quantile)
                                 : quantile_of(mutable_raw_data<float>(magnitudes, "magnitudes", {count}), count, quantile);
}

}  // namespace quiver::tensor
