// Against SciPy, and definitions in NumPy, in tests/golden/statistics.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/results/compare.h"
#include "quiver/results/statistics.h"

namespace quiver::results {
namespace {

const nlohmann::json& golden() {
  static const auto document = io::read_json_file("tests/golden/statistics/cases.json");
  return document;
}

void expect_p(double found, double expected) { EXPECT_NEAR(found, expected, 1e-9 * expected + 1e-300); }

TEST(GoldenStatistics, McNemarsTestIsScipysBinomialTest) {
  for (const auto& entry : golden().at("mcnemar")) {
    SCOPED_TRACE(entry.dump());
    expect_p(mcnemar_p_value(entry[0], entry[1]), entry[2]);
    expect_p(mcnemar_p_value(entry[0], entry[1], McNemar::kMidP), entry[3]);
  }
}

TEST(GoldenStatistics, StudentsPValueIsScipys) {
  for (const auto& entry : golden().at("student")) {
    SCOPED_TRACE(entry.dump());
    expect_p(student_t_p_value(entry[0], entry[1]), entry[2]);
  }
}

TEST(GoldenStatistics, HolmsCorrectionIsItsDefinition) {
  for (const auto& entry : golden().at("holm")) {
    SCOPED_TRACE(entry.dump());
    const auto found = holm_corrected(entry[0].get<std::vector<double>>());
    const auto expected = entry[1].get<std::vector<double>>();
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_DOUBLE_EQ(found[i], expected[i]) << i;
  }
}

/// The golden methods "0" ... "4" as samples of section "instruction".
Results golden_samples() {
  const auto& cases = golden().at("comparisons");
  Results results{.methods = {{"0"}, {"1"}, {"2"}, {"3"}, {"4"}}, .metrics = {{.name = "nll", .better = Better::kLower}}};
  for (std::size_t row = 0; row < cases.at("values").size(); ++row) {
    for (std::size_t m = 0; m < results.methods.size(); ++m) {
      results.samples.push_back({.section = "instruction",
                                 .method = results.methods[m].name,
                                 .task = format("task{}", cases.at("tasks")[row].get<int>()),
                                 .id = std::to_string(row),
                                 .metrics = {{"nll", cases.at("values")[row][m]}}});
    }
  }
  return results;
}

void expect_test(const PairedTest& found, const nlohmann::json& expected, std::size_t pair) {
  const auto at = [&](const char* figure) { return expected.at(figure)[pair].get<double>(); };
  expect_p(found.p, at("p"));
  expect_p(found.corrected_p, at("corrected_p"));
  const double near = 0.025 * (at("high") - at("low"));
  EXPECT_NEAR(found.low, at("low"), near);
  EXPECT_NEAR(found.high, at("high"), near);
  EXPECT_NEAR(found.simultaneous_low, at("simultaneous_low"), near);
  EXPECT_NEAR(found.simultaneous_high, at("simultaneous_high"), near);
}

TEST(GoldenStatistics, ComparisonsAreScipysTestsAndNumpysBootstrap) {
  const auto found = compare_methods(golden_samples());
  const auto& cases = golden().at("comparisons");
  ASSERT_EQ(found.size(), cases.at("pairs").size());
  for (std::size_t pair = 0; pair < found.size(); ++pair) {
    SCOPED_TRACE(cases.at("pairs")[pair].dump());
    EXPECT_EQ(found[pair].method, std::to_string(cases.at("pairs")[pair][0].get<int>()));
    EXPECT_EQ(found[pair].other, std::to_string(cases.at("pairs")[pair][1].get<int>()));
    expect_test(*found[pair].by_row, cases.at("by_row"), pair);
    expect_test(*found[pair].by_task, cases.at("by_task"), pair);
  }
}

}  // namespace
}  // namespace quiver::results
