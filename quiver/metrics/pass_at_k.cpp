#include "quiver/metrics/pass_at_k.h"

#include "quiver/base/error.h"

namespace quiver::metrics {

double pass_at_k(std::int64_t num_samples, std::int64_t num_correct, std::int64_t k) {
  if (num_correct < 0 || num_correct > num_samples) {
    fail(ErrorKind::kUsage, "pass@{}: {} correct samples of {}; expected 0 to {}", k, num_correct, num_samples, num_samples);
  }
  if (k < 1 || k > num_samples) {
    fail(ErrorKind::kUsage, "pass@{} of {} samples is not defined; k must be from 1 to the number of samples", k, num_samples);
  }
  if (num_samples - num_correct < k) return 1;  // any k samples hold a correct one
  double all_fail = 1;
  for (std::int64_t i = num_samples - num_correct + 1; i <= num_samples; ++i) {
    all_fail *= 1 - static_cast<double>(k) / static_cast<double>(i);
  }
  return 1 - all_fail;
}

}  // namespace quiver::metrics
