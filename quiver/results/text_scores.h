// Figures of texts, which weigh by length: word_perplexity, byte_perplexity and bits_per_byte, as lm-evaluation-harness has them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "quiver/results/results.h"

namespace quiver::results {

/// What a metric of texts makes of log-likelihoods L and lengths: x = -sum L / (unit * sum of lengths), or exp(x).
struct TextMetric {
  std::optional<std::int64_t> Sample::*length;
  double unit = 1;
  bool is_exponential = false;  ///< a perplexity: no mean of the texts' values, so that methods are compared by bits_per_byte instead

  /// Of one text; NaN where it has no length, and beyond kMaxNumber.
  double value_of(const Sample& sample) const;
};

/// nullptr for all other metrics.
const TextMetric* find_text_metric(std::string_view name);

/// The figure of all texts together, with its standard error for other texts,
///
///   x = sum_i s_i / sum_i w_i,   standard_error = sqrt(n / (n - 1) * sum_i (s_i - x w_i)^2) / sum_i w_i,   s_i = -L_i / unit,
///
/// where w_i is the text's length (Cochran 1977, eq. 6.9, a ratio); of exp(x), exp(x) times that. With lengths of 1 it is estimate_mean.
/// NaN where the texts have no length, and beyond kMaxNumber. Throws kUsage for no texts, or a log-likelihood that is not finite.
Estimate estimate_texts(const TextMetric& metric, std::span<const Sample* const> texts);

}  // namespace quiver::results
