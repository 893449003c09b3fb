#include "quiver/metrics/choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename Function>
void expect_refusal(ErrorKind kind, const char* part, Function function) {
  EXPECT_ERROR(function(), kind, part);
}

TEST(BestChoice, IsTheFirstOfTheHighest) {
  EXPECT_EQ(best_choice(std::vector<double>{-3, -1, -1, -2}), 1);
  EXPECT_EQ(best_choice(std::vector<double>{-std::numeric_limits<double>::infinity(), -9}), 1);
}

TEST(BestChoice, RefusesNanAndNoChoice) {
  expect_refusal(ErrorKind::kUsage, "choice 1 is not a number", [] { best_choice(std::vector<double>{-1, kNan}); });
  expect_refusal(ErrorKind::kUsage, "without choices", [] { best_choice({}); });
}

TEST(BestChoiceNormalized, DividesByCodePoints) {
  // Per character -0.5, -0.4 and -0.45; by bytes the second would have -0.2, and the third -0.45.
  const std::vector<std::string> choices = {"ab", "\xC3\xA9\xC3\xA8\xC3\xA9\xC3\xA8\xC3\xA9", "abcd"};
  EXPECT_EQ(best_choice_normalized(std::vector<double>{-1.0, -2.0, -1.8}, choices), 1);
  EXPECT_EQ(best_choice(std::vector<double>{-1.0, -2.0, -1.8}), 0);
  // Bytes would choose 1 here (-0.25 against -0.45), code points choose 2 (-0.5 against -0.45).
  EXPECT_EQ(best_choice_normalized(std::vector<double>{-1.0, -2.5, -1.8}, choices), 2);
}

TEST(BestChoiceNormalized, RefusesEmptyChoicesAndOtherLengths) {
  expect_refusal(ErrorKind::kUsage, "choice 1 is empty", [] {
    best_choice_normalized(std::vector<double>{-1, -2}, std::vector<std::string>{"a", ""});
  });
  expect_refusal(ErrorKind::kMismatch, "1 log-likelihoods for 2 choices", [] {
    best_choice_normalized(std::vector<double>{-1}, std::vector<std::string>{"a", "b"});
  });
}

TEST(BestChoicePerByte, DividesByBytes) {
  // Per byte -0.25 and -0.45; per character -0.5 and -0.45.
  const std::vector<std::string> choices = {"\u00E9\u00E8\u00E9\u00E8\u00E9", "abcd"};
  EXPECT_EQ(best_choice_per_byte(std::vector<double>{-2.5, -1.8}, choices), 0);
  EXPECT_EQ(best_choice_normalized(std::vector<double>{-2.5, -1.8}, choices), 1);
}

TEST(BestChoicePerByte, RefusesEmptyChoicesAndOtherLengths) {
  expect_refusal(ErrorKind::kUsage, "choice 0 is empty", [] {
    best_choice_per_byte(std::vector<double>{-1, -2}, std::vector<std::string>{"", "a"});
  });
  expect_refusal(ErrorKind::kMismatch, "2 log-likelihoods for 1 choices", [] {
    best_choice_per_byte(std::vector<double>{-1, -2}, std::vector<std::string>{"a"});
  });
}

TEST(BestChoiceByMutualInfo, SubtractsTheUnconditional) {
  EXPECT_EQ(best_choice_by_mutual_info(std::vector<double>{-1, -3, -5}, std::vector<double>{-1, -6, -8}), 1);
  EXPECT_EQ(best_choice_by_mutual_info(std::vector<double>{-1, -3}, std::vector<double>{-1, -2}), 0);
}

TEST(BestChoiceByMutualInfo, RefusesWhatHasNoDifference) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  expect_refusal(ErrorKind::kUsage, "choice 1 has the log-likelihoods -inf with and -inf without", [] {
    best_choice_by_mutual_info(std::vector<double>{-1, kNever}, std::vector<double>{-1, kNever});
  });
  expect_refusal(ErrorKind::kMismatch, "2 log-likelihoods for 1 unconditional", [] {
    best_choice_by_mutual_info(std::vector<double>{-1, -2}, std::vector<double>{-1});
  });
}

TEST(BestChoicePerToken, TakesTheBestMean) {
  // Sums -2, -3 and -3; means -2, -1 and -1.
  EXPECT_EQ(best_choice_per_token(std::vector<std::vector<double>>{{-2}, {-0.5, -1, -1.5}, {-1, -1, -1}}), 1);
}

TEST(BestChoicePerToken, RefusesAChoiceWithoutTokens) {
  expect_refusal(ErrorKind::kUsage, "choice 1 has no token", [] { best_choice_per_token(std::vector<std::vector<double>>{{-1}, {}}); });
  expect_refusal(ErrorKind::kUsage, "choice 0 is not a number", [] { best_choice_per_token(std::vector<std::vector<double>>{{kNan}}); });
  expect_refusal(ErrorKind::kUsage, "without choices", [] { best_choice_per_token({}); });
}

}  // namespace
}  // namespace quiver::metrics
