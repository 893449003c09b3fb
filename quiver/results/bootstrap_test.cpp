#include "quiver/results/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

std::vector<double> random_values(std::size_t size) {
  RandomStream stream(3, "values");
  std::vector<double> values(size);
  for (auto& value : values) value = stream.uniform(-1, 2);
  return values;
}

/// bootstrap_means by its definition: the rows of each draw written out, one after the other, and averaged.
std::vector<double> plain_means(const std::vector<double>& values, std::size_t columns, const std::vector<std::int64_t>& clusters,
                                std::int64_t num_draws, RandomStream& stream) {
  const auto num_clusters = std::ranges::max(clusters) + 1;
  UnitDraws pick(stream, num_clusters);
  std::vector<double> means;
  for (std::int64_t b = 0; b < num_draws; ++b) {
    std::vector<std::size_t> drawn;
    for (std::int64_t g = 0; g < num_clusters; ++g) {
      const auto cluster = std::int64_t{pick.next()};
      for (std::size_t row = 0; row < clusters.size(); ++row) {
        if (clusters[row] == cluster) drawn.push_back(row);
      }
    }
    for (std::size_t m = 0; m < columns; ++m) {
      double sum = 0;
      for (const auto row : drawn) sum += values[row * columns + m];
      means.push_back(sum / static_cast<double>(drawn.size()));
    }
  }
  return means;
}

void expect_equal(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-12) << i;
}

TEST(BootstrapMeans, OfRowsEqualTheDefinition) {
  for (const std::size_t columns : {1, 3, 4, 5, 8}) {  // tiles that are full and that are not
    SCOPED_TRACE(columns);
    const auto values = random_values(37 * columns);
    std::vector<std::int64_t> each(37);
    for (std::size_t row = 0; row < each.size(); ++row) each[row] = static_cast<std::int64_t>(row);
    RandomStream fast(5, "draws"), plain(5, "draws");
    expect_equal(bootstrap_means(rows_as_units(values, static_cast<std::int64_t>(columns)), 22, fast),
                 plain_means(values, columns, each, 22, plain));
  }
}

TEST(BootstrapMeans, OfClustersEqualTheDefinition) {
  const std::vector<std::int64_t> clusters = {0, 0, 1, 2, 2, 2, 1, 3, 4, 4, 4, 4, 4, 0};
  for (const std::size_t columns : {1, 3, 4, 6}) {
    SCOPED_TRACE(columns);
    const auto values = random_values(clusters.size() * columns);
    RandomStream fast(6, "draws"), plain(6, "draws");
    expect_equal(bootstrap_means(clusters_as_units(values, static_cast<std::int64_t>(columns), clusters), 41, fast),
                 plain_means(values, columns, clusters, 41, plain));
  }
}

TEST(BootstrapMeans, HavePercentilesOfAllResamples) {
  const auto golden = io::read_json_file("tests/golden/statistics/cases.json").at("all_resamples");
  const auto values = golden.at("values").get<std::vector<double>>();
  RandomStream stream(0, "draws");
  const auto means = bootstrap_means(rows_as_units(values, 1), 10'000, stream);
  const double shares[] = {0.1, 0.5, 0.9};
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(quantile(means, shares[i]), golden.at("percentiles")[i].get<double>(), 0.02);
}

TEST(BootstrapMeans, RefuseWhatCannotBeDrawn) {
  RandomStream stream(0, "draws");
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_ERROR(bootstrap_means({}, 10, stream), ErrorKind::kUsage, "a bootstrap of 0 units by 10 draws");
  EXPECT_ERROR(bootstrap_means(rows_as_units(std::vector<double>{1}, 1), 0, stream), ErrorKind::kUsage, "of 1 units by 0 draws");
  EXPECT_ERROR(rows_as_units(std::vector<double>{1, 2, 3}, 2), ErrorKind::kMismatch, "3 values in rows of 2 columns");
  EXPECT_ERROR(rows_as_units(std::vector<double>{1, kNan}, 1), ErrorKind::kUsage, "value 1 is nan");
  const std::vector<double> two = {1, 2};
  EXPECT_ERROR(clusters_as_units(two, 1, std::vector<std::int64_t>{0}), ErrorKind::kMismatch, "2 rows in 1 clusters");
  EXPECT_ERROR(clusters_as_units(two, 1, std::vector<std::int64_t>{0, -1}), ErrorKind::kUsage, "row 1 is in cluster -1");
  EXPECT_ERROR(clusters_as_units(two, 1, std::vector<std::int64_t>{1, 1}), ErrorKind::kUsage, "cluster 0 has no rows");
  EXPECT_ERROR(UnitDraws(stream, 0), ErrorKind::kUsage, "draws from 0 units");
}

TEST(UnitDraws, AreUniform) {
  for (const std::int64_t units : {1, 3, 1000}) {
    SCOPED_TRACE(units);
    RandomStream stream(1, "draws");
    UnitDraws pick(stream, units);
    std::vector<double> counts(static_cast<std::size_t>(units));
    const int per_unit = 400;
    for (std::int64_t i = 0; i < units * per_unit; ++i) ++counts.at(pick.next());
    double chi_squared = 0;
    for (const double count : counts) chi_squared += (count - per_unit) * (count - per_unit) / per_unit;
    const double degrees = static_cast<double>(units) - 1;
    EXPECT_LE(std::abs(chi_squared - degrees), 4 * std::sqrt(2 * degrees));
  }
}

TEST(UnitDraws, ReachTheLastOfManyUnits) {
  RandomStream stream(1, "draws");
  const std::int64_t units = std::int64_t{1} << 31;
  UnitDraws pick(stream, units);
  std::uint32_t largest = 0;
  for (int i = 0; i < 1000; ++i) largest = std::max(largest, pick.next());
  EXPECT_GT(largest, 0.99 * static_cast<double>(units));
  EXPECT_LT(largest, units);
}

TEST(Quantile, InterpolatesBetweenNeighbours) {
  const std::vector<double> values = {4, 1, 3, 2};
  EXPECT_EQ(quantile(values, 0), 1);
  EXPECT_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 3.7);
  EXPECT_EQ(quantile(values, 1), 4);
  EXPECT_EQ(quantile({7}, 0.3), 7);
  EXPECT_ERROR(quantile({}, 0.5), ErrorKind::kUsage, "of 0 values");
  EXPECT_ERROR(quantile({1}, 1.5), ErrorKind::kUsage, "quantile 1.5");
}

TEST(SimultaneousIntervals, AreByTheLargestDeviationOverAllFigures) {
  SimultaneousIntervals together(3);
  together.add(2, std::vector<double>{1, 2, 3});      // deviation 1: largest 1, 0, 1
  together.add(-1, std::vector<double>{-1, -7, -4});  // deviation 3: 0, 2, 1
  together.add(5, std::vector<double>{5, 5, 5});      // does not vary
  const auto found = together.intervals(0.5);         // the median of 1, 2, 1
  ASSERT_EQ(found.size(), 3u);
  EXPECT_DOUBLE_EQ(found[0].low, 1);
  EXPECT_DOUBLE_EQ(found[0].high, 3);
  EXPECT_DOUBLE_EQ(found[1].low, -4);
  EXPECT_DOUBLE_EQ(found[1].high, 2);
  EXPECT_DOUBLE_EQ(found[2].low, 5);
  EXPECT_DOUBLE_EQ(found[2].high, 5);
  EXPECT_DOUBLE_EQ(together.intervals(1)[0].low, 0);
  EXPECT_ERROR(together.add(0, std::vector<double>{1}), ErrorKind::kMismatch, "1 draws of a figure beside 3");
  EXPECT_TRUE(SimultaneousIntervals(2).intervals(0.95).empty());
}

}  // namespace
}  // namespace quiver::results
