#include "quiver/metrics/perplexity.h"

#include <cmath>
#include <numbers>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/metrics/python_text.h"

namespace quiver::metrics {
namespace {

/// The mean log-likelihood per word or byte, whichever `length` is.
double weighted_mean(std::span<const TextScore> texts, std::int64_t TextScore::*length, std::string_view unit) {
  double sum = 0;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (std::isnan(texts[i].log_likelihood)) {
      fail(ErrorKind::kUsage, "the log-likelihood of text {} is not a number; does the model compute in too narrow a dtype?", i);
    }
    sum += texts[i].log_likelihood;
    total += texts[i].*length;
  }
  if (total <= 0) fail(ErrorKind::kUsage, "{} texts have {} {}; a perplexity needs at least one", texts.size(), total, unit);
  return sum / static_cast<double>(total);
}

}  // namespace

std::int64_t count_words(std::string_view text) {
  check_utf8(text, "text");
  std::int64_t num_words = 1;
  bool was_space = false;
  for_each_character(text, [&](std::string_view, char32_t c) {
    const bool is_space = is_python_space(c);
    if (is_space && !was_space) ++num_words;
    was_space = is_space;
  });
  return num_words;
}

TextScore text_score(std::string_view text, double log_likelihood) { return {log_likelihood, count_words(text), std::ssize(text)}; }

double word_perplexity(std::span<const TextScore> texts) { return std::exp(-weighted_mean(texts, &TextScore::num_words, "words")); }
double byte_perplexity(std::span<const TextScore> texts) { return std::exp(-weighted_mean(texts, &TextScore::num_bytes, "bytes")); }
double bits_per_byte(std::span<const TextScore> texts) { return -weighted_mean(texts, &TextScore::num_bytes, "bytes") / std::numbers::ln2; }

}  // namespace quiver::metrics
