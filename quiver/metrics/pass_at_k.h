// Whether one of k sampled programs passes its tests.
#pragma once

#include <cstdint>

namespace quiver::metrics {

/// The unbiased estimate of the probability that one of k samples is correct, from n samples of which c are correct,
///
///   pass@k = 1 - C(n - c, k) / C(n, k)        (Chen et al. 2021, "Evaluating large language models trained on code", eq. 1)
///
/// It is computed as 1 - prod_{i = n - c + 1}^{n} (1 - k / i), as in the paper's figure 3: no number overflows. Accurate to about 1e-15 n.
/// Throws kUsage unless 0 <= num_correct <= num_samples and 1 <= k <= num_samples.
double pass_at_k(std::int64_t num_samples, std::int64_t num_correct, std::int64_t k);

}  // namespace quiver::metrics
