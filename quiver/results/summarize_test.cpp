#include "quiver/results/summarize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::results {
namespace {

/// Four methods on three samples of two tasks; "other" is in another section.
Results evaluated() {
  Results results{.methods = {{"base"}, {"private-mean"}, {"private-arrow"}, {"private-oracle"}},
                  .metrics = {{.name = "nll", .better = Better::kLower}, {.name = "rouge_l", .better = Better::kHigher}}};
  const auto add = [&](const char* method, double a, double b, double c) {
    results.samples.push_back({.section = "train", .method = method, .task = "alpha", .id = "1", .metrics = {{"nll", a}}});
    results.samples.push_back({.section = "train", .method = method, .task = "alpha", .id = "2", .metrics = {{"nll", b}}});
    results.samples.push_back({.section = "train", .method = method, .task = "beta", .id = "1", .metrics = {{"nll", c}}});
  };
  add("base", 3, 5, 4);
  add("private-mean", 2, 4, 4);
  add("private-arrow", 2, 3, 2.5);
  add("private-oracle", 1, 2, 3);
  results.samples.push_back({.section = "instruction", .method = "base", .task = "other", .id = "1", .metrics = {{"rouge_l", 0.5}}});
  return results;
}

TEST(Summarize, EqualsTheDefinitions) {
  auto results = evaluated();
  summarize(results);
  ASSERT_EQ(results.summary.size(), 5u);
  const auto* row = results.find_summary("train", "private-arrow", "nll");
  ASSERT_NE(row, nullptr);
  EXPECT_DOUBLE_EQ(row->mean, 2.5);
  EXPECT_DOUBLE_EQ(row->standard_error, 0.5 / std::sqrt(3.0));
  EXPECT_EQ(row->count, 3);
  const double student = 0.95 * std::sqrt(2 / (1 - 0.95 * 0.95));  // 97.5 % with 2 degrees of freedom
  EXPECT_DOUBLE_EQ(row->difference->mean, -1.5);
  EXPECT_NEAR(row->difference->low, -1.5 - student * 0.5 / std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(row->difference->high, -1.5 + student * 0.5 / std::sqrt(3.0), 1e-12);
  EXPECT_EQ(row->difference->count, 3);
  EXPECT_DOUBLE_EQ(row->difference_by_task->high, -1.5);  // both tasks have the same mean difference
  EXPECT_DOUBLE_EQ(*row->recovered, 0.625);               // (10/3 - 5/2) / (10/3 - 2)
  EXPECT_EQ(results.find_summary("instruction", "base", "rouge_l")->mean, 0.5);
}

TEST(Summarize, ComparesTheBaseAndTheEndsOfTheWayWithNothing) {
  auto results = evaluated();
  summarize(results);
  EXPECT_FALSE(results.find_summary("train", "base", "nll")->difference);
  EXPECT_FALSE(results.find_summary("train", "base", "nll")->recovered);
  EXPECT_FALSE(results.find_summary("train", "private-mean", "nll")->recovered);
  EXPECT_FALSE(results.find_summary("train", "private-oracle", "nll")->recovered);
}

TEST(Summarize, KnowsNoWayToAnOracleThatIsNoBetter) {
  auto results = evaluated();
  results.metrics[0].better = Better::kHigher;
  summarize(results);
  EXPECT_FALSE(results.find_summary("train", "private-arrow", "nll")->recovered);
}

TEST(Summarize, PairsTheSamplesThatBothHave) {
  auto results = evaluated();
  std::erase_if(results.samples, [](const Sample& sample) { return sample.method == "base" && sample.id == "2"; });
  summarize(results);
  const auto& difference = *results.find_summary("train", "private-arrow", "nll")->difference;
  EXPECT_DOUBLE_EQ(difference.mean, -1.25);  // of -1 and -1.5
  EXPECT_EQ(difference.count, 2);
}

TEST(Summarize, GivesTheMeansOfEachTask) {
  auto results = evaluated();
  summarize(results);
  ASSERT_EQ(results.per_task.size(), 9u);
  const auto& row = results.per_task[2];  // tasks by name, methods in their order
  EXPECT_EQ(row.task + row.metric + row.method, "alphanllprivate-arrow");
  EXPECT_DOUBLE_EQ(row.mean, 2.5);
  EXPECT_DOUBLE_EQ(row.standard_error, 0.5);
  EXPECT_EQ(row.count, 2);
}

TEST(Summarize, ComparesAllPairs) {
  auto results = evaluated();
  results.comparisons.resize(1);
  results.warnings.resize(1);
  summarize(results);
  ASSERT_EQ(results.comparisons.size(), 6u);  // of four methods
  EXPECT_EQ(results.comparisons[1].other, "private-arrow");
  EXPECT_DOUBLE_EQ(results.comparisons[1].mean, 1.5);
  EXPECT_TRUE(results.warnings.empty());
}

TEST(Summarize, RefusesWhatIsNotFinite) {
  auto results = evaluated();
  results.samples[1].metrics[0].second = NAN;
  EXPECT_ERROR(summarize(results), ErrorKind::kUsage, "statistics need finite numbers");
}

}  // namespace
}  // namespace quiver::results
