// Perplexities of texts from their log-likelihoods.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace quiver::metrics {

/// A text's log-likelihood in nats, over all its windows (rolling_windows.h), and the text's length.
struct TextScore {
  double log_likelihood = 0;
  std::int64_t num_words = 0;
  std::int64_t num_bytes = 0;
};

/// len(re.split(r"\s+", text)) in Python: one more than the runs of white space. So white space at an end adds an empty word, and an empty
/// text has one. Throws kBadFormat unless `text` is UTF-8.
std::int64_t count_words(std::string_view text);

/// The score of `text`: num_words as count_words gives it, num_bytes its bytes in UTF-8. Throws as count_words.
TextScore text_score(std::string_view text, double log_likelihood);

// The metrics of the same names of lm-evaluation-harness 0.4.13 over a corpus. Sums run from left to right in float64. All throw kUsage if
// there is no text, a log-likelihood is NaN, or the texts have no length. A perplexity beyond float64 is infinity; the harness stops there.

/// exp(-sum of log-likelihoods / sum of words)
double word_perplexity(std::span<const TextScore> texts);
/// exp(-sum of log-likelihoods / sum of bytes)
double byte_perplexity(std::span<const TextScore> texts);
/// -sum of log-likelihoods / (sum of bytes * ln 2)
double bits_per_byte(std::span<const TextScore> texts);

}  // namespace quiver::metrics
