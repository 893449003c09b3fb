#include "quiver/results/text_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

constexpr std::pair<std::string_view, TextMetric> kMetrics[] = {
    {"word_perplexity", {.length = &Sample::num_words, .is_exponential = true}},
    {"byte_perplexity", {.length = &Sample::num_bytes, .is_exponential = true}},
    {"bits_per_byte", {.length = &Sample::num_bytes, .unit = std::numbers::ln2}},
};

/// A document holds no larger numbers.
double limited(double value) { return std::isfinite(value) && std::abs(value) <= kMaxNumber ? value : kNothing; }

double length_of(const TextMetric& metric, const Sample& sample) { return static_cast<double>((sample.*metric.length).value_or(0)); }

}  // namespace

double TextMetric::value_of(const Sample& sample) const {
  const double mean = -sample.log_likelihood.value_or(kNothing) / (unit * length_of(*this, sample));
  return limited(is_exponential ? std::exp(mean) : mean);
}

const TextMetric* find_text_metric(std::string_view name) {
  const auto* found = std::ranges::find(kMetrics, name, &std::pair<std::string_view, TextMetric>::first);
  return found == std::end(kMetrics) ? nullptr : &found->second;
}

Estimate estimate_texts(const TextMetric& metric, std::span<const Sample* const> texts) {
  if (texts.empty()) fail(ErrorKind::kUsage, "the perplexity of no texts is undefined; evaluate at least one");
  double sum = 0, length = 0;
  for (const auto* text : texts) {
    const double log_likelihood = text->log_likelihood.value_or(kNothing);
    if (!std::isfinite(log_likelihood))
      fail(ErrorKind::kUsage, "the log-likelihood of text '{}' is {}; statistics need finite numbers", text->id, log_likelihood);
    sum -= log_likelihood / metric.unit;
    length += length_of(metric, *text);
  }
  const auto count = static_cast<double>(texts.size());
  const double mean = sum / length;
  double squares = 0;
  for (const auto* text : texts) {
    const double deviation = -*text->log_likelihood / metric.unit - mean * length_of(metric, *text);
    squares += deviation * deviation;
  }
  const double error = texts.size() == 1 ? kNothing : std::sqrt(count / (count - 1) * squares) / length;
  const double scale = metric.is_exponential ? std::exp(mean) : 1;
  return {.mean = limited(metric.is_exponential ? scale : mean),
          .standard_error = limited(scale * error),
          .count = static_cast<std::int64_t>(texts.size())};
}

}  // namespace quiver::results
