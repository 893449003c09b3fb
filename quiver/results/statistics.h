// Means with their uncertainty, and paired comparisons.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quiver::results {

struct Estimate {
  double mean = 0;
  double standard_error = 0;  ///< NaN for a single value: one value says nothing about its spread
  std::int64_t count = 0;
};

/// The mean of a sample and its standard error,
///
///   mean = sum_i x_i / n,   standard_error = sqrt(sum_i (x_i - mean)^2 / (n (n - 1))).
///
/// Throws kUsage if the sample is empty or holds a value that is not finite.
Estimate estimate_mean(std::span<const double> values);

/// A paired difference, to the base model in results, with its interval (95 % there).
struct Difference {
  double mean = 0;
  double low = 0;   ///< -infinity for a single pair
  double high = 0;  ///< +infinity for a single pair
  std::int64_t count = 0;

  /// The interval tells the two apart.
  bool excludes_zero() const { return low > 0 || high < 0; }
};

/// The mean of values_i - baseline_i with its Student t interval,
///
///   mean +- t_{n-1, (1 + confidence) / 2} * standard_error,
///
/// which takes the two lists to be results on the same samples, in the same order: what both find
/// hard cancels, so that the interval is much narrower than that of two independent means. Exact
/// for normal differences; for others (0-1 accuracies) it relies on the central limit theorem, as
/// any such interval of a harness does.
///
/// Throws kMismatch if the lengths differ, kUsage if they are zero, a value is not finite, or
/// confidence is not inside (0, 1).
Difference paired_difference(std::span<const double> values, std::span<const double> baseline, double confidence = 0.95);

/// The same mean with an interval for tasks drawn anew, not only their rows,
///
///   mean +- t_{G-1, (1 + confidence) / 2} * sqrt(G / (G - 1) * sum_g (sum_{i in g} (d_i - mean))^2) / n,   d_i = values_i - baseline_i,
///
/// over the G clusters g that `clusters` names, one per value (Cameron and Miller 2015, eq. 6 to 11, for a mean). Rows of one task are
/// alike, so that an interval by rows is too narrow for a statement about other tasks. With one row a cluster it is paired_difference.
/// `count` is n. With a single cluster the interval is infinite. Throws as paired_difference, and kMismatch for another number of clusters.
Difference clustered_difference(std::span<const double> values, std::span<const double> baseline, std::span<const std::string> clusters,
                                double confidence = 0.95);

/// The two-sided p-value of Student's paired test that the mean of d_i = values_i - baseline_i is 0,
///
///   t = mean / standard_error,   p = P(|T_{n-1}| >= |t|)        (Student 1908)
///
/// p < 1 - confidence where the interval of paired_difference excludes 0. 1 for a single pair, or if all d_i are 0; 0 if all are one other
/// number. Throws as paired_difference.
double paired_t_p_value(std::span<const double> values, std::span<const double> baseline);

/// The same with the standard error of clustered_difference and G - 1 degrees of freedom, for G clusters (Cameron and Miller 2015, sec.
/// VI.D). 1 for a single cluster. Throws as clustered_difference.
double clustered_t_p_value(std::span<const double> values, std::span<const double> baseline, std::span<const std::string> clusters);

/// clustered_difference of values that weigh: mean = sum_i w_i d_i / sum_i w_i; a cluster's sum is that of w_i (d_i - mean), and sum_i w_i
/// stands for n. `count` is the number of values. Throws as clustered_difference, and kMismatch or kUsage unless each value has a finite
/// weight above 0.
Difference weighted_difference(std::span<const double> values, std::span<const double> baseline, std::span<const double> weights,
                               std::span<const std::string> clusters, double confidence = 0.95);
/// The p-value that belongs to it, as clustered_t_p_value.
double weighted_t_p_value(std::span<const double> values, std::span<const double> baseline, std::span<const double> weights,
                          std::span<const std::string> clusters);

/// How McNemar's test counts the table that was found. Half of its probability is less conservative (Fagerland et al. 2013).
enum class McNemar { kExact, kMidP };

/// McNemar's test for paired 0/1 values: that as many pairs are (1, 0) as (0, 1). Pairs of equal values say nothing. Two-sided, with the
/// smaller of the two counts k, their sum m and X binomial (m, 1/2),
///
///   exact: p = min(1, 2 P(X <= k)),   mid-p: p = 2 P(X <= k) - P(X = k)        (McNemar 1947; Fagerland et al. 2013, eq. 3 and 4)
///
/// 1 if both counts are 0. Throws kUsage for a negative count.
double mcnemar_p_value(std::int64_t only_first, std::int64_t only_second, McNemar kind = McNemar::kExact);

/// p-values of m tests corrected so that the chance of any false rejection among all is at most the level, whatever their dependence,
///
///   corrected_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)        (Holm 1979)
///
/// in the order of `p_values`. Throws kUsage for one outside [0, 1].
std::vector<double> holm_corrected(std::span<const double> p_values);

/// I_x(a, b), the regularised incomplete beta function (DLMF 8.17), a, b > 0, x in [0, 1]; by its
/// continued fraction, to ten digits or more for a and b up to 1e6.
double incomplete_beta(double a, double b, double x);

/// P(|T| >= |t|) for Student's distribution with `degrees` > 0 degrees of freedom; 0 for an infinite t. Throws kUsage for a NaN.
double student_t_p_value(double t, double degrees);

/// The t with P(T <= t) = probability for Student's distribution with `degrees` > 0 degrees of
/// freedom. Throws kUsage unless probability is inside (0, 1).
double student_t_quantile(double probability, double degrees);

}  // namespace quiver::results
