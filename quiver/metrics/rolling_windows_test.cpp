#include "quiver/metrics/rolling_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::int32_t> first_tokens(std::int32_t count) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 1);
  return tokens;
}

TEST(RollingWindows, PredictEveryTokenOnce) {
  const auto windows = rolling_windows(first_tokens(10), {.prefix_token = 99, .max_length = 4});
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_THAT(windows[0].context, ElementsAre(99));
  EXPECT_THAT(windows[0].continuation, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(windows[1].context, ElementsAre(4));
  EXPECT_THAT(windows[1].continuation, ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(windows[2].context, ElementsAre(6, 7, 8));  // the last sees as much as fits
  EXPECT_THAT(windows[2].continuation, ElementsAre(9, 10));
}

TEST(RollingWindows, GiveLaterOnesTheContextAskedFor) {
  const auto windows = rolling_windows(first_tokens(6), {.prefix_token = 99, .max_length = 4, .context_length = 3});
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_THAT(windows[1].context, ElementsAre(2, 3, 4));
  EXPECT_THAT(windows[1].continuation, ElementsAre(5, 6));
}

TEST(RollingWindows, FitTheModelForEveryLength) {
  for (std::int32_t num_tokens = 1; num_tokens < 30; ++num_tokens) {
    const auto tokens = first_tokens(num_tokens);
    std::vector<std::int32_t> predicted;
    for (const auto& [context, continuation] : rolling_windows(tokens, {.prefix_token = 0, .max_length = 7, .context_length = 2})) {
      EXPECT_LE(context.size() + continuation.size() - 1, 7u);
      EXPECT_EQ(context.back(), continuation.front() - 1);
      predicted.insert(predicted.end(), continuation.begin(), continuation.end());
    }
    EXPECT_EQ(predicted, tokens);
  }
}

TEST(RollingWindows, OfNoTokenAreNone) { EXPECT_THAT(rolling_windows({}, {.max_length = 4}), IsEmpty()); }

TEST(RollingWindows, RefuseAContextThatDoesNotFit) {
  EXPECT_ERROR(rolling_windows({}, {.max_length = 4, .context_length = 0}), ErrorKind::kUsage,
               "cannot have a context of 0; expected 1 to 4");
  EXPECT_ERROR(rolling_windows({}, {.max_length = 4, .context_length = 5}), ErrorKind::kUsage, "cannot have a context of 5");
}

}  // namespace
}  // namespace quiver::metrics
