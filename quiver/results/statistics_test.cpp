#include "quiver/results/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename Function>
void expect_refusal(ErrorKind kind, const char* part, Function function) {
  EXPECT_ERROR(function(), kind, part);
}

const std::vector<double> kValues = {1.31, 0.92, 2.75, 1.04, 3.33, 0.71, 1.98};
const std::vector<double> kBaseline = {1.52, 0.90, 3.10, 1.33, 3.61, 0.75, 2.41};

// Expected values in this file: scipy.stats and scipy.special 1.x, numpy.
TEST(EstimateMean, EqualsNumpy) {
  const auto estimate = estimate_mean(kValues);
  EXPECT_DOUBLE_EQ(estimate.mean, 1.72);
  EXPECT_NEAR(estimate.standard_error, 0.378317075379647, 1e-14);
  EXPECT_EQ(estimate.count, 7);
}

TEST(EstimateMean, KeepsItsDigitsFarFromZero) {
  const std::vector<double> far = {1e9 + 1, 1e9 + 2, 1e9 + 3};
  EXPECT_NEAR(estimate_mean(far).standard_error, std::sqrt(1.0 / 3), 1e-12);
}

TEST(EstimateMean, OfOneValueHasNoStandardError) {
  const auto estimate = estimate_mean(std::vector<double>{4.5});
  EXPECT_EQ(estimate.mean, 4.5);
  EXPECT_TRUE(std::isnan(estimate.standard_error));
}

TEST(EstimateMean, RefusesNothingAndNan) {
  expect_refusal(ErrorKind::kUsage, "no values", [] { estimate_mean({}); });
  expect_refusal(ErrorKind::kUsage, "value 1 is nan", [] { estimate_mean(std::vector<double>{1, kNan}); });
}

TEST(PairedDifference, EqualsScipysInterval) {
  const auto difference = paired_difference(kValues, kBaseline);
  EXPECT_NEAR(difference.mean, -0.22571428571428573, 1e-14);
  EXPECT_NEAR(difference.low, -0.3764440125093327, 1e-12);
  EXPECT_NEAR(difference.high, -0.07498455891923878, 1e-12);
  EXPECT_EQ(difference.count, 7);
  EXPECT_TRUE(difference.excludes_zero());
}

TEST(PairedDifference, IsNarrowerWithLessConfidence) {
  const auto difference = paired_difference(kValues, kBaseline, 0.8);
  EXPECT_NEAR(difference.low, -0.31440321430618723, 1e-12);
  EXPECT_NEAR(difference.high, -0.13702535712238423, 1e-12);
}

TEST(PairedDifference, OfEqualListsIsZeroWithoutWidth) {
  const auto difference = paired_difference(kValues, kValues);
  EXPECT_EQ(difference.low, 0);
  EXPECT_EQ(difference.high, 0);
  EXPECT_FALSE(difference.excludes_zero());
}

TEST(PairedDifference, OfOnePairKnowsNothing) {
  const auto difference = paired_difference(std::vector<double>{2}, std::vector<double>{1});
  EXPECT_EQ(difference.mean, 1);
  EXPECT_TRUE(std::isinf(difference.low) && std::isinf(difference.high));
  EXPECT_FALSE(difference.excludes_zero());
}

TEST(PairedDifference, RefusesWhatIsNotPaired) {
  expect_refusal(ErrorKind::kMismatch, "2 values, 1 baseline", [] {
    paired_difference(std::vector<double>{1, 2}, std::vector<double>{1});
  });
  expect_refusal(ErrorKind::kUsage, "no values", [] { paired_difference({}, {}); });
  expect_refusal(ErrorKind::kUsage, "confidence is 95", [] { paired_difference(kValues, kBaseline, 95); });
  expect_refusal(ErrorKind::kUsage, "baseline value 0 is inf",
                 [] { paired_difference(std::vector<double>{1}, std::vector<double>{std::numeric_limits<double>::infinity()}); });
}

TEST(StudentTQuantile, EqualsScipy) {
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.706204736174694, 1e-11);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.302652729749462, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.975, 11), 2.200985160091639, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.975, 95), 1.9852510035054978, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.975, 6038), 1.9603569522042295, 1e-10);
  EXPECT_NEAR(student_t_quantile(0.975, 1e6), 1.959966356814107, 1e-8);
  EXPECT_NEAR(student_t_quantile(0.995, 3), 5.840909309733355, 1e-12);
  EXPECT_NEAR(student_t_quantile(0.6, 2.5), 0.2814595127485477, 1e-12);
  EXPECT_NEAR(student_t_quantile(1e-6, 7), -14.241469651981445, 1e-10);
  EXPECT_EQ(student_t_quantile(0.5, 3), 0);
}

TEST(StudentTQuantile, RefusesWhatHasNone) {
  expect_refusal(ErrorKind::kUsage, "quantile of 1 with 3", [] { student_t_quantile(1, 3); });
  expect_refusal(ErrorKind::kUsage, "with 0 degrees", [] { student_t_quantile(0.9, 0); });
}

TEST(IncompleteBeta, EqualsScipy) {
  EXPECT_NEAR(incomplete_beta(0.5, 0.5, 0.3), 0.36901011956554536, 1e-14);
  EXPECT_NEAR(incomplete_beta(2, 3, 0.25), 0.26171875, 1e-14);
  EXPECT_NEAR(incomplete_beta(50, 0.5, 0.97), 0.08169933372182264, 1e-13);
  EXPECT_NEAR(incomplete_beta(1000, 0.5, 0.999), 0.15724727426672383, 1e-11);
  EXPECT_EQ(incomplete_beta(2, 3, 0), 0);
  EXPECT_EQ(incomplete_beta(2, 3, 1), 1);
  expect_refusal(ErrorKind::kUsage, "undefined", [] { incomplete_beta(2, 3, 1.5); });
}

TEST(ClusteredDifference, IsTheSpreadOfTheClustersMeansWhereTheyAreOfOneSize) {
  const std::vector<double> values = {3, 1, 0, 2, 7, 9}, baseline = {1, 1, 1, 1, 1, 1};
  const std::vector<std::string> tasks = {"a", "b", "a", "b", "c", "c"};
  const auto found = clustered_difference(values, baseline, tasks);
  // The means by cluster are 0.5, 0.5 and 7: mean 8 / 3, deviation sqrt(14.0833...), over 3 clusters; t of 2 degrees of freedom.
  const std::vector<double> means = {0.5, 0.5, 7}, zeros = {0, 0, 0};
  const auto expected = paired_difference(means, zeros);
  EXPECT_NEAR(found.mean, 8.0 / 3, 1e-12);
  EXPECT_NEAR(found.low, expected.low, 1e-9);
  EXPECT_NEAR(found.high, expected.high, 1e-9);
  EXPECT_EQ(found.count, 6);
}

TEST(ClusteredDifference, OfOneRowAClusterIsThePairedDifference) {
  const std::vector<double> values = {3, 1, 0, 2}, baseline = {1, 4, 1, 5};
  const std::vector<std::string> tasks = {"a", "b", "c", "d"};
  const auto found = clustered_difference(values, baseline, tasks), expected = paired_difference(values, baseline);
  EXPECT_NEAR(found.low, expected.low, 1e-12);
  EXPECT_NEAR(found.high, expected.high, 1e-12);
}

TEST(ClusteredDifference, SaysNothingOfOtherTasksByOne) {
  const std::vector<double> values = {3, 1}, baseline = {1, 4};
  const std::vector<std::string> one = {"a", "a"}, short_list = {"a"};
  const auto found = clustered_difference(values, baseline, one);
  EXPECT_TRUE(std::isinf(found.low));
  EXPECT_TRUE(std::isinf(found.high));
  EXPECT_ERROR(clustered_difference(values, baseline, short_list), ErrorKind::kMismatch, "2 values in 1 named clusters");
}

TEST(PairedTPValue, EqualsScipysAndMatchesTheInterval) {
  const double p = paired_t_p_value(kValues, kBaseline);
  EXPECT_NEAR(p, 0.01052673935773728, 1e-12);  // scipy.stats.ttest_rel
  EXPECT_NEAR(paired_difference(kValues, kBaseline, 1 - p).high, 0, 1e-9);
}

TEST(PairedTPValue, OfDifferencesThatDoNotVary) {
  EXPECT_EQ(paired_t_p_value(kValues, kValues), 1);
  EXPECT_EQ(paired_t_p_value(std::vector<double>{2, 3}, std::vector<double>{1, 2}), 0);
  EXPECT_EQ(paired_t_p_value(std::vector<double>{2}, std::vector<double>{1}), 1);
  expect_refusal(ErrorKind::kMismatch, "7 values, 1 baseline", [] { paired_t_p_value(kValues, std::vector<double>{1}); });
}

TEST(ClusteredTPValue, MatchesTheInterval) {
  const std::vector<std::string> tasks = {"a", "b", "a", "b", "c", "c", "c"}, one(7, "a");
  const double p = clustered_t_p_value(kValues, kBaseline, tasks);
  EXPECT_NEAR(clustered_difference(kValues, kBaseline, tasks, 1 - p).high, 0, 1e-9);
  EXPECT_EQ(clustered_t_p_value(kValues, kBaseline, one), 1);
}

TEST(McNemarPValue, CountsBothTails) {
  EXPECT_NEAR(mcnemar_p_value(1, 5), 14.0 / 64, 1e-12);  // 2 (1 + 6) / 2^6
  EXPECT_NEAR(mcnemar_p_value(5, 1), 14.0 / 64, 1e-12);
  EXPECT_NEAR(mcnemar_p_value(5, 1, McNemar::kMidP), 8.0 / 64, 1e-12);
  EXPECT_EQ(mcnemar_p_value(0, 0), 1);
  expect_refusal(ErrorKind::kUsage, "of -1 and 2 pairs", [] { mcnemar_p_value(-1, 2); });
}

TEST(HolmCorrected, RefusesWhatIsNoPValue) {
  expect_refusal(ErrorKind::kUsage, "p-value 1 is nan", [] { holm_corrected(std::vector<double>{0.5, kNan}); });
  expect_refusal(ErrorKind::kUsage, "p-value 0 is 1.5", [] { holm_corrected(std::vector<double>{1.5}); });
}

TEST(StudentTPValue, OfInfinityIsZero) {
  EXPECT_EQ(student_t_p_value(std::numeric_limits<double>::infinity(), 3), 0);
  EXPECT_EQ(student_t_p_value(0, 3), 1);
  expect_refusal(ErrorKind::kUsage, "t = nan", [] { student_t_p_value(kNan, 3); });
}

TEST(WeightedDifference, EqualsTheClusteredOneOfRepeatedValues) {
  const std::vector<double> values = {1, 4, 2}, baseline = {0, 1, 4}, weights = {2, 1, 3};
  const std::vector<std::string> clusters = {"a", "b", "c"};
  const std::vector<double> all = {1, 1, 4, 2, 2, 2}, all_baseline = {0, 0, 1, 4, 4, 4};
  const std::vector<std::string> all_clusters = {"a", "a", "b", "c", "c", "c"};
  const auto found = weighted_difference(values, baseline, weights, clusters);
  const auto expected = clustered_difference(all, all_baseline, all_clusters);
  EXPECT_DOUBLE_EQ(found.mean, -1.0 / 6);
  EXPECT_DOUBLE_EQ(found.mean, expected.mean);
  EXPECT_DOUBLE_EQ(found.low, expected.low);
  EXPECT_DOUBLE_EQ(found.high, expected.high);
  EXPECT_EQ(found.count, 3);
  EXPECT_DOUBLE_EQ(weighted_t_p_value(values, baseline, weights, clusters), clustered_t_p_value(all, all_baseline, all_clusters));
  EXPECT_ERROR(weighted_difference(values, baseline, all, clusters), ErrorKind::kMismatch, "3 values with 6 weights");
  const std::vector<double> zero = {1, 0, 1};
  EXPECT_ERROR(weighted_difference(values, baseline, zero, clusters), ErrorKind::kUsage, "weight 1 is 0; expected a number above 0");
}

}  // namespace
}  // namespace quiver::results
