#include "quiver/metrics/stop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

std::string cut(std::string_view text, const std::vector<std::string>& stops) { return std::string(cut_at_stops(text, stops)); }

TEST(CutAtStops, CutsBeforeTheFirstOccurrence) {
  EXPECT_EQ(cut("an answer\n\nQuestion: \n\n", {"\n\n", "Question:"}), "an answer");
  EXPECT_EQ(cut("an answer Question:\n\n", {"\n\n", "Question:"}), "an answer ");
  EXPECT_EQ(cut("no stop", {"\n"}), "no stop");
  EXPECT_EQ(cut("\nempty", {"\n"}), "");
  EXPECT_EQ(cut("text", {}), "text");
}

TEST(CutAtStops, TakesTheStopsInTurn) {
  EXPECT_EQ(cut("abc", {"bc", "ab"}), "a");
  EXPECT_EQ(cut("abc", {"ab", "bc"}), "");
}

TEST(CutAtStops, IgnoresAnEmptyStop) { EXPECT_EQ(cut("abc", {"", "c"}), "ab"); }

TEST(AfterThinking, TakesWhatFollowsTheLastMarker) {
  EXPECT_EQ(after_thinking("<think>a</think>b</think>\u2003\n c ", "</think>"), "c ");
  EXPECT_EQ(after_thinking(" no marker ", "</think>"), "no marker ");
  EXPECT_EQ(after_thinking("a</think>", "</think>"), "");
}

TEST(AfterThinking, RefusesAnEmptyMarker) {
  EXPECT_ERROR(after_thinking("a", ""), ErrorKind::kUsage, "the marker that ends the thinking is empty");
}

}  // namespace
}  // namespace quiver::metrics
