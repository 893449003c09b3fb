#include "quiver/results/warnings.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

/// `right` of `count` questions with `choices` choices each are answered right.
void add_choices(Results& results, const char* method, int right, int count, std::size_t choices = 4) {
  for (int i = 0; i < count; ++i) {
    results.samples.push_back({.section = "choice",
                               .method = method,
                               .task = "quiz",
                               .id = std::to_string(i),
                               .metrics = {{"acc", i < right ? 1 : 0}, {"acc_norm", 0.5}},
                               .log_probs = std::vector<double>(choices, -1.0)});
  }
}

TEST(FindWarnings, NamesMethodsWhoseAccuracyMayBeGuessing) {
  Results results{.methods = {{"base"}, {"good"}, {"bad"}}};
  add_choices(results, "base", 33, 100);  // 1.96 sqrt(100 * 3 / 16) = 8.487: guessing gives 16.5 to 33.5
  add_choices(results, "good", 34, 100);
  add_choices(results, "bad", 16, 100);
  const auto found = find_warnings(results);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].kind + "|" + found[0].section + "|" + found[0].method + "|" + found[0].task, "near chance|choice|base|quiz");
  EXPECT_EQ(found[0].text, "33.0 % of 100 right, and guessing gives 16.5 to 33.5 %");
}

TEST(FindWarnings, TakesTheMeanOfTheChancesWhereQuestionsDiffer) {
  Results results{.methods = {{"base"}}};
  add_choices(results, "base", 25, 50, 2);
  add_choices(results, "base", 15, 50, 5);
  // 40 of 100; chance 0.35, deviation sqrt(50 * 0.25 + 50 * 0.16) / 100 = 0.0453.
  ASSERT_EQ(find_warnings(results).size(), 1u);
  EXPECT_EQ(find_warnings(results)[0].text, "40.0 % of 100 right, and guessing gives 26.1 to 43.9 %");
}

TEST(FindWarnings, SaysNothingOfGuessingWhereTheMetricIsNotZeroOrOne) {
  Results results{.methods = {{"base"}}};
  add_choices(results, "base", 5, 20);
  ASSERT_EQ(find_warnings(results).size(), 1u);
  results.samples.front().metrics.front().second = 0.5;
  EXPECT_TRUE(find_warnings(results).empty());
}

TEST(FindWarnings, SaysNothingOfGuessingOnFewQuestions) {
  Results few{.methods = {{"base"}}}, enough{.methods = {{"base"}}};
  add_choices(few, "base", 5, 19);
  add_choices(enough, "base", 5, 20);
  EXPECT_TRUE(find_warnings(few).empty());
  ASSERT_EQ(find_warnings(enough).size(), 1u);
  EXPECT_EQ(find_warnings(enough)[0].text, "25.0 % of 20 right, and guessing gives 6.0 to 44.0 %");
}

using Text = std::function<std::string(int)>;

Results answered(int count, const Text& answer, const Text& target) {
  Results results{.methods = {{"base"}}};
  for (int i = 0; i < count; ++i) {
    results.samples.push_back(
        {.section = "train", .method = "base", .task = "alpha", .id = std::to_string(i), .prediction = answer(i), .targets = {target(i)}});
  }
  return results;
}

const Text kNumber = [](int i) { return std::to_string(i); };

TEST(FindWarnings, NamesMethodsWhoseAnswersAreMostlyEmpty) {
  const auto empty_below = [](int end) { return [end](int i) { return i < end ? std::string(" \n") : std::to_string(i); }; };
  const auto found = find_warnings(answered(10, empty_below(5), kNumber));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].kind, "empty answers");
  EXPECT_EQ(found[0].text, "5 of 10 answers are empty");
  EXPECT_TRUE(find_warnings(answered(10, empty_below(4), kNumber)).empty());
  EXPECT_TRUE(find_warnings(answered(4, empty_below(4), kNumber)).empty());  // too few
}

TEST(FindWarnings, NamesMethodsWhoseAnswersAreMostlyTheSame) {
  const auto same_below = [](int end) { return [end](int i) { return i < end ? std::string(" yes") : std::to_string(i); }; };
  const auto found = find_warnings(answered(20, same_below(16), kNumber));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].kind, "equal answers");
  EXPECT_EQ(found[0].text, "16 of 20 answers are the same text, and the targets are not");
  EXPECT_TRUE(find_warnings(answered(20, same_below(15), kNumber)).empty());
  EXPECT_TRUE(find_warnings(answered(19, same_below(19), kNumber)).empty());         // too few
  EXPECT_TRUE(find_warnings(answered(20, same_below(20), same_below(16))).empty());  // so are the targets
  EXPECT_EQ(find_warnings(answered(20, same_below(20), same_below(15))).size(), 1u);
}

TEST(FindWarnings, NeedsAnswersAtAll) {
  auto results = answered(30, kNumber, kNumber);
  for (auto& sample : results.samples) sample.prediction.reset();
  EXPECT_TRUE(find_warnings(results).empty());
}

}  // namespace
}  // namespace quiver::results
