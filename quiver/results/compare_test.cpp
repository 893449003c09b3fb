#include "quiver/results/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/results/bootstrap.h"
#include "quiver/results/statistics.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

void add(Results& results, const char* section, const std::string& method, const std::vector<double>& values, int rows_per_task = 5) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    results.samples.push_back({.section = section,
                               .method = method,
                               .task = format("task{}", i / static_cast<std::size_t>(rows_per_task)),
                               .id = std::to_string(i),
                               .metrics = {{results.metrics.front().name, values[i]}}});
  }
}

std::vector<double> noisy(const char* name, double mean, std::size_t size = 40) {
  RandomStream stream(9, name);
  std::vector<double> values(size);
  for (auto& value : values) value = mean + stream.uniform(-1, 1);
  return values;
}

/// Three methods on 40 rows of 8 tasks; "b" is lower by 1.
Results three_methods() {
  Results results{.methods = {{"a"}, {"b"}, {"c"}}, .metrics = {{.name = "nll", .better = Better::kLower}}};
  add(results, "train", "c", noisy("c", 3));
  add(results, "train", "a", noisy("a", 3));
  add(results, "train", "b", noisy("b", 2));
  return results;
}

TEST(CompareMethods, GivesTheStatisticsOfEveryPair) {
  const auto found = compare_methods(three_methods());
  ASSERT_EQ(found.size(), 3u);
  const auto a = noisy("a", 3), b = noisy("b", 2), c = noisy("c", 3);
  const std::pair<const std::vector<double>*, const std::vector<double>*> pairs[] = {{&a, &b}, {&a, &c}, {&b, &c}};
  std::vector<std::string> tasks;
  for (int i = 0; i < 40; ++i) tasks.push_back(format("task{}", i / 5));
  std::vector<double> by_row, by_task;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& [first, second] = pairs[i];
    EXPECT_DOUBLE_EQ(found[i].mean, paired_difference(*first, *second).mean);
    EXPECT_EQ(found[i].count, 40);
    EXPECT_EQ(found[i].by_row->test, "paired t");
    EXPECT_EQ(found[i].by_task->test, "clustered t");
    by_row.push_back(paired_t_p_value(*first, *second));
    by_task.push_back(clustered_t_p_value(*first, *second, tasks));
    EXPECT_EQ(found[i].by_row->p, by_row.back());
    EXPECT_EQ(found[i].by_task->p, by_task.back());
  }
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(found[i].by_row->corrected_p, holm_corrected(by_row)[i]);
    EXPECT_EQ(found[i].by_task->corrected_p, holm_corrected(by_task)[i]);
  }
  EXPECT_EQ(found[0].method + found[0].other + found[2].method + found[2].other, "abbc");
  EXPECT_TRUE(found[0].by_row->is_told_apart());
  EXPECT_FALSE(found[1].by_row->is_told_apart());
  EXPECT_TRUE(found[2].by_task->is_told_apart());
}

/// The percentile interval by its definition: draws of whole clusters of differences, sorted.
Interval plain_interval(const std::vector<double>& differences, const std::vector<std::int64_t>& clusters, std::int64_t num_clusters,
                        const std::string& stream_name) {
  RandomStream stream(0, stream_name);
  UnitDraws pick(stream, num_clusters);
  std::vector<double> means;
  for (int b = 0; b < 10'000; ++b) {
    double sum = 0, count = 0;
    for (std::int64_t g = 0; g < num_clusters; ++g) {
      const auto cluster = std::int64_t{pick.next()};
      for (std::size_t i = 0; i < clusters.size(); ++i) {
        if (clusters[i] == cluster) sum += differences[i], ++count;
      }
    }
    means.push_back(sum / count);
  }
  std::ranges::sort(means);
  const auto between = [&](double place) {  // of 10,000 sorted values, at a place between two
    const auto below = static_cast<std::size_t>(place);
    return means[below] + (place - static_cast<double>(below)) * (means[below + 1] - means[below]);
  };
  return {between(0.025 * 9999), between(0.975 * 9999)};
}

TEST(CompareMethods, HasTheIntervalsOfAPlainBootstrap) {
  const auto found = compare_methods(three_methods());
  const auto a = noisy("a", 3), c = noisy("c", 3);
  std::vector<double> differences;
  std::vector<std::int64_t> rows, tasks;
  for (std::size_t i = 0; i < a.size(); ++i) {
    differences.push_back(a[i] - c[i]);
    rows.push_back(static_cast<std::int64_t>(i));
    tasks.push_back(static_cast<std::int64_t>(i) / 5);
  }
  // Rows stand by task and id as texts: "10" before "5". Within a task that changes which row has which number.
  std::vector<std::string> ids;
  for (const auto row : rows) ids.push_back(format("task{} {}", row / 5, row));
  std::ranges::sort(rows, {}, [&](std::int64_t row) { return ids[static_cast<std::size_t>(row)]; });
  std::vector<double> sorted;
  for (const auto row : rows) sorted.push_back(differences[static_cast<std::size_t>(row)]);
  std::ranges::sort(rows);
  const auto by_row = plain_interval(sorted, rows, 40, "bootstrap/train/nll/row");
  const auto by_task = plain_interval(sorted, tasks, 8, "bootstrap/train/nll/task");
  EXPECT_NEAR(found[1].by_row->low, by_row.low, 1e-12);
  EXPECT_NEAR(found[1].by_row->high, by_row.high, 1e-12);
  EXPECT_NEAR(found[1].by_task->low, by_task.low, 1e-12);
  EXPECT_NEAR(found[1].by_task->high, by_task.high, 1e-12);
  EXPECT_LT(found[1].by_row->simultaneous_low, by_row.low);
  EXPECT_GT(found[1].by_row->simultaneous_high, by_row.high);
}

TEST(CompareMethods, TakesMcNemarsTestForZerosAndOnes) {
  Results results{.methods = {{"a"}, {"b"}, {"c"}}, .metrics = {{.name = "exact_match", .better = Better::kHigher}}};
  add(results, "train", "a", {1, 1, 1, 1, 1, 1, 1, 1, 0, 0});
  add(results, "train", "b", {0, 0, 0, 0, 0, 0, 0, 1, 1, 0});
  add(results, "train", "c", {0.5, 0, 0, 0, 0, 0, 0, 1, 1, 0});
  const auto found = compare_methods(results);
  EXPECT_EQ(found[0].by_row->test, "mcnemar");
  EXPECT_NEAR(found[0].by_row->p, 18.0 / 256, 1e-12);  // 7 against 1: 2 (1 + 8) / 2^8
  EXPECT_EQ(found[1].by_row->test, "paired t");        // not all are 0 or 1
}

TEST(CompareMethods, PairsTheSamplesThatBothHave) {
  auto results = three_methods();
  std::erase_if(results.samples, [](const Sample& sample) { return sample.method == "a" && sample.task != "task0"; });
  results.samples.front().metrics.front().second = std::numeric_limits<double>::quiet_NaN();  // c has no value of the first row
  const auto found = compare_methods(results);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].count, 5);
  EXPECT_EQ(found[1].count, 4);
  EXPECT_EQ(found[2].count, 39);
  // One task says nothing of others.
  EXPECT_EQ(found[0].by_task->p, 1);
  EXPECT_EQ(found[0].by_task->corrected_p, 1);
  EXPECT_TRUE(std::isinf(found[0].by_task->low) && std::isinf(found[0].by_task->simultaneous_high));
  EXPECT_FALSE(found[0].by_task->is_told_apart());
  EXPECT_TRUE(std::isfinite(found[2].by_task->low));
  EXPECT_TRUE(found[2].by_task->is_told_apart());
}

TEST(CompareMethods, LeavesOutPairsWithoutACommonSample) {
  auto results = three_methods();
  for (auto& sample : results.samples) {
    if (sample.method == "a") sample.task = "another";
  }
  const auto found = compare_methods(results);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].method + found[0].other, "bc");
}

TEST(CompareMethods, ComparesEverySectionByItself) {
  auto results = three_methods();
  add(results, "code", "b", {1, 2, 3, 4});
  add(results, "code", "c", {1, 2, 3, 4});
  const auto found = compare_methods(results);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[3].section, "code");
  EXPECT_EQ(found[3].mean, 0);
  EXPECT_EQ(found[3].by_row->low, 0);
  EXPECT_EQ(found[3].by_row->p, 1);
  EXPECT_FALSE(found[3].by_row->is_told_apart());
}

TEST(CompareMethods, DependsOnNothingButSamplesAndSeed) {
  const auto first = compare_methods(three_methods()), second = compare_methods(three_methods());
  EXPECT_EQ(first[1].by_task->low, second[1].by_task->low);
  EXPECT_NE(first[1].by_task->low, compare_methods(three_methods(), {.seed = 1})[1].by_task->low);
  EXPECT_ERROR(compare_methods(three_methods(), {.num_draws = 0}), ErrorKind::kUsage, "by 0 draws");
}

TEST(PairedTest, TellsApartOnlyWhereIntervalAndPValueDo) {
  const PairedTest both{.low = 1, .high = 3, .simultaneous_low = 0.5, .simultaneous_high = 3.5, .p = 0.01, .corrected_p = 0.04};
  auto wide = both, by_chance = both, below = both;
  wide.simultaneous_low = -0.5;
  by_chance.corrected_p = 0.05;
  below.simultaneous_low = -3, below.simultaneous_high = -1;
  EXPECT_TRUE(both.is_told_apart());
  EXPECT_FALSE(wide.is_told_apart());
  EXPECT_FALSE(by_chance.is_told_apart());
  EXPECT_TRUE(below.is_told_apart());
}

}  // namespace
}  // namespace quiver::results
