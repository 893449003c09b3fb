#include "quiver/results/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

/// The continued fraction of I_x(a, b) (DLMF 8.17.22), evaluated by Lentz's method as modified by
/// Thompson and Barnett. Converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr double kPrecision = 1e-16;
  constexpr int kMaxTerms = 100'000;  // terms grow as sqrt(max(a, b)): 1e6 needs about a thousand
  const auto away_from_zero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };

  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double value = d;
  for (int m = 1; m < kMaxTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    value *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    value *= d * c;
    if (std::abs(d * c - 1) <= kPrecision * 4) return value;
  }
  fail(ErrorKind::kInternal, "the incomplete beta function did not converge for a = {}, b = {}, x = {}", a, b, x);
}

/// I_x(a, b) for 0 < x < 1, given y = 1 - x, too, which the caller may know to more digits.
double incomplete_beta_of(double a, double b, double x, double y) {
  // x^a y^b / B(a, b), the same for both ends.
  const double front = std::exp(a * std::log(x) + b * std::log(y) + std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, y) / b;
}

/// P(T > t) for t > 0: half of I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2).
double student_t_tail(double t, double degrees) {
  const double square = t * t;
  const double x = degrees / (degrees + square);
  const double y = square / (degrees + square);
  if (x <= 0 || y <= 0) return x <= 0 ? 0.0 : 0.5;
  return 0.5 * incomplete_beta_of(degrees / 2, 0.5, x, y);
}

/// The t >= 0 with P(T > t) = tail, tail in (0, 1/2].
double student_t_upper(double tail, double degrees) {
  double low = 0;
  double high = 1;
  while (student_t_tail(high, degrees) > tail) {
    low = high;
    high *= 2;
    if (!std::isfinite(high)) return high;  // beyond every number: few degrees of freedom, a tiny tail
  }
  // The tail falls monotonically: halve until the bounds are neighbours. Slow beside Newton's method, and sure.
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return high;
    (student_t_tail(middle, degrees) > tail ? low : high) = middle;
  }
}

void require_finite(std::span<const double> values, const char* what) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      fail(ErrorKind::kUsage, "{} {} is {}; statistics need finite numbers", what, i, values[i]);
    }
  }
}

}  // namespace

Estimate estimate_mean(std::span<const double> values) {
  if (values.empty()) fail(ErrorKind::kUsage, "the mean of no values is undefined; evaluate at least one sample");
  require_finite(values, "value");
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double x : values) sum += x;
  const double mean = sum / n;
  // The squares around the mean, not the mean of squares less the square: no digits cancel.
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  const double error = values.size() == 1 ? std::numeric_limits<double>::quiet_NaN() : std::sqrt(squares / (n * (n - 1)));
  return {.mean = mean, .standard_error = error, .count = static_cast<std::int64_t>(values.size())};
}

namespace {

/// Of a test, which asks for none.
constexpr double kAnyConfidence = 0.95;

/// values - baseline, checked.
std::vector<double> differences_of(std::span<const double> values, std::span<const double> baseline, double confidence) {
  if (values.size() != baseline.size()) {
    fail(ErrorKind::kMismatch, "a paired difference needs the same samples on both sides; {} values, {} baseline values", values.size(),
         baseline.size());
  }
  if (!(confidence > 0 && confidence < 1)) {
    fail(ErrorKind::kUsage, "confidence is {}; expected a share between 0 and 1, such as 0.95", confidence);
  }
  require_finite(values, "value");
  require_finite(baseline, "baseline value");
  std::vector<double> differences(values.size());
  std::transform(values.begin(), values.end(), baseline.begin(), differences.begin(), std::minus<>());
  return differences;
}

/// Student's interval with num_units - 1 degrees of freedom around an estimate; infinite for one unit.
Difference interval_around(const Estimate& estimate, double standard_error, std::size_t num_units, double confidence) {
  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  const double reach =
      num_units < 2 ? kInfinity : student_t_quantile((1 + confidence) / 2, static_cast<double>(num_units - 1)) * standard_error;
  return {.mean = estimate.mean, .low = estimate.mean - reach, .high = estimate.mean + reach, .count = estimate.count};
}

}  // namespace

Difference paired_difference(std::span<const double> values, std::span<const double> baseline, double confidence) {
  const auto differences = differences_of(values, baseline, confidence);
  const auto estimate = estimate_mean(differences);
  return interval_around(estimate, estimate.standard_error, differences.size(), confidence);
}

namespace {

/// The standard error of the mean of differences for other clusters, and how many clusters there are.
struct ClusteredError {
  double value = 0;
  std::size_t num_clusters = 0;
};

ClusteredError clustered_error(std::span<const double> differences, double mean, std::span<const double> weights,
                               std::span<const std::string> clusters) {
  if (clusters.size() != differences.size()) {
    fail(ErrorKind::kMismatch, "{} values in {} named clusters; expected the cluster of each value", differences.size(), clusters.size());
  }
  std::map<std::string_view, double> sums;  // of the deviations in a cluster
  double total = 0;
  for (std::size_t i = 0; i < differences.size(); ++i) {
    sums[clusters[i]] += weights[i] * (differences[i] - mean);
    total += weights[i];
  }
  double squares = 0;
  for (const auto& [cluster, sum] : sums) squares += sum * sum;
  const auto count = static_cast<double>(sums.size());
  const double error = sums.size() < 2 ? 0 : std::sqrt(count / (count - 1) * squares) / total;
  return {.value = error, .num_clusters = sums.size()};
}

std::vector<double> equal_weights(std::size_t count) { return std::vector<double>(count, 1.0); }

/// sum_i w_i d_i / sum_i w_i, of checked weights.
Estimate weighted_mean(std::span<const double> differences, std::span<const double> weights) {
  if (weights.size() != differences.size())
    fail(ErrorKind::kMismatch, "{} values with {} weights; expected the weight of each value", differences.size(), weights.size());
  if (differences.empty()) fail(ErrorKind::kUsage, "the mean of no values is undefined; evaluate at least one sample");
  require_finite(weights, "weight");
  double sum = 0, total = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) fail(ErrorKind::kUsage, "weight {} is {}; expected a number above 0", i, weights[i]);
    sum += weights[i] * differences[i];
    total += weights[i];
  }
  return {.mean = sum / total, .count = static_cast<std::int64_t>(differences.size())};
}

double t_test(double mean, double standard_error, std::size_t num_units) {
  if (num_units < 2 || mean == 0) return 1;
  return student_t_p_value(mean / standard_error, static_cast<double>(num_units - 1));
}

}  // namespace

Difference clustered_difference(std::span<const double> values, std::span<const double> baseline, std::span<const std::string> clusters,
                                double confidence) {
  const auto differences = differences_of(values, baseline, confidence);
  const auto estimate = estimate_mean(differences);
  const auto error = clustered_error(differences, estimate.mean, equal_weights(differences.size()), clusters);
  return interval_around(estimate, error.value, error.num_clusters, confidence);
}

double paired_t_p_value(std::span<const double> values, std::span<const double> baseline) {
  const auto differences = differences_of(values, baseline, kAnyConfidence);
  const auto estimate = estimate_mean(differences);
  return t_test(estimate.mean, estimate.standard_error, differences.size());
}

double clustered_t_p_value(std::span<const double> values, std::span<const double> baseline, std::span<const std::string> clusters) {
  const auto differences = differences_of(values, baseline, kAnyConfidence);
  const double mean = estimate_mean(differences).mean;
  const auto error = clustered_error(differences, mean, equal_weights(differences.size()), clusters);
  return t_test(mean, error.value, error.num_clusters);
}

Difference weighted_difference(std::span<const double> values, std::span<const double> baseline, std::span<const double> weights,
                               std::span<const std::string> clusters, double confidence) {
  const auto differences = differences_of(values, baseline, confidence);
  const auto estimate = weighted_mean(differences, weights);
  const auto error = clustered_error(differences, estimate.mean, weights, clusters);
  return interval_around(estimate, error.value, error.num_clusters, confidence);
}

double weighted_t_p_value(std::span<const double> values, std::span<const double> baseline, std::span<const double> weights,
                          std::span<const std::string> clusters) {
  const auto differences = differences_of(values, baseline, kAnyConfidence);
  const double mean = weighted_mean(differences, weights).mean;
  const auto error = clustered_error(differences, mean, weights, clusters);
  return t_test(mean, error.value, error.num_clusters);
}

double mcnemar_p_value(std::int64_t only_first, std::int64_t only_second, McNemar kind) {
  if (only_first < 0 || only_second < 0) {
    fail(ErrorKind::kUsage, "McNemar's test of {} and {} pairs is undefined; expected counts from 0", only_first, only_second);
  }
  if (only_first == only_second) return 1;
  const auto k = static_cast<double>(std::min(only_first, only_second));
  const auto m = static_cast<double>(only_first) + static_cast<double>(only_second);
  // P(X <= k) = I_{1/2}(m - k, k + 1) (DLMF 8.17.5).
  const double both_tails = 2 * incomplete_beta(m - k, k + 1, 0.5);
  if (kind == McNemar::kExact) return std::min(both_tails, 1.0);
  const double found = std::exp(std::lgamma(m + 1) - std::lgamma(k + 1) - std::lgamma(m - k + 1) - m * std::log(2.0));
  return std::min(both_tails - found, 1.0);
}

std::vector<double> holm_corrected(std::span<const double> p_values) {
  for (std::size_t i = 0; i < p_values.size(); ++i) {
    if (!(p_values[i] >= 0 && p_values[i] <= 1)) fail(ErrorKind::kUsage, "p-value {} is {}; expected one from 0 to 1", i, p_values[i]);
  }
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return p_values[i]; });
  std::vector<double> corrected(p_values.size());
  double largest = 0;
  for (std::size_t j = 0; j < order.size(); ++j) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(order.size() - j) * p_values[order[j]]));
    corrected[order[j]] = largest;
  }
  return corrected;
}

double incomplete_beta(double a, double b, double x) {
  if (!(a > 0 && b > 0 && x >= 0 && x <= 1)) {
    fail(ErrorKind::kUsage, "incomplete_beta({}, {}, {}) is undefined; expected a, b > 0 and x in [0, 1]", a, b, x);
  }
  if (x == 0 || x == 1) return x;
  return incomplete_beta_of(a, b, x, 1 - x);
}

double student_t_p_value(double t, double degrees) {
  if (std::isnan(t) || !(degrees > 0)) {
    fail(ErrorKind::kUsage, "Student's p-value of t = {} with {} degrees of freedom is undefined; expected a number and degrees > 0", t,
         degrees);
  }
  return std::isinf(t) ? 0 : std::min(1.0, 2 * student_t_tail(std::abs(t), degrees));
}

double student_t_quantile(double probability, double degrees) {
  if (!(probability > 0 && probability < 1) || !(degrees > 0)) {
    fail(ErrorKind::kUsage,
         "Student's quantile of {} with {} degrees of freedom is undefined; expected a probability between 0 and 1 and degrees > 0",
         probability, degrees);
  }
  if (probability == 0.5) return 0;
  return probability < 0.5 ? -student_t_upper(probability, degrees) : student_t_upper(1 - probability, degrees);
}

}  // namespace quiver::results
