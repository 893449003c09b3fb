#include "quiver/metrics/filters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

TEST(TakeFirst, GivesTheFirst) { EXPECT_EQ(take_first(std::vector<std::string>{"a", "b"}), "a"); }

TEST(TakeFirst, RefusesNoResponse) { EXPECT_ERROR(take_first({}), ErrorKind::kUsage, "at least one response"); }

TEST(RemoveWhitespace, StripsBothEnds) { EXPECT_EQ(remove_whitespace("\u3000 a b\n"), "a b"); }

TEST(RemoveWhitespace, RefusesOtherBytes) { EXPECT_ERROR(remove_whitespace("\xFF"), ErrorKind::kBadFormat, "the response of 1 bytes"); }

TEST(RegexFilter, ReadsTheAnswersOfGsm8kByDefault) {
  EXPECT_EQ(RegexFilter().apply("2 + 2 = 4\n#### 1,004.\n#### 5"), "1,004.");
  EXPECT_EQ(RegexFilter().apply("four"), "[invalid]");
}

TEST(RegexFilter, SelectsAMatchFromEitherEnd) {
  const std::string text = "1, 22, 333";
  EXPECT_EQ(RegexFilter({.pattern = "\\d+", .group_select = 1}).apply(text), "22");
  EXPECT_EQ(RegexFilter({.pattern = "\\d+", .group_select = -1}).apply(text), "333");
  EXPECT_EQ(RegexFilter({.pattern = "\\d+", .group_select = -3}).apply(text), "1");
}

TEST(RegexFilter, TakesTheFirstGroupWithText) {
  EXPECT_EQ(RegexFilter({.pattern = "(a)|(b+)|(c)"}).apply("xbb"), "bb");
  EXPECT_EQ(RegexFilter({.pattern = "x(a)?(b)?", .fallback = " none "}).apply("x"), "none");  // the harness strips it here, and only here
  EXPECT_EQ(RegexFilter({.pattern = "x(a)?(b)?", .fallback = " none "}).apply("y"), " none ");
  EXPECT_EQ(RegexFilter({.pattern = "x(a)?"}).apply("x"), "");
}

TEST(RegexFilter, StripsTheMatch) { EXPECT_EQ(RegexFilter({.pattern = "is(.*)"}).apply("it is\u2003 4 "), "4"); }

TEST(RegexFilter, RefusesAMatchThatIsNotThere) {
  EXPECT_ERROR(RegexFilter({.pattern = "a", .group_select = 2}).apply("aa"), ErrorKind::kUsage,
               "group_select is 2, but the response has 2 matches of 'a'");
  EXPECT_ERROR(RegexFilter({.pattern = "a", .group_select = -3}).apply("aa"), ErrorKind::kUsage, "group_select is -3");
  EXPECT_EQ(RegexFilter({.pattern = "a", .group_select = 2}).apply("b"), "[invalid]");
}

TEST(RegexFilter, RefusesABadPatternAndOtherBytes) {
  EXPECT_ERROR(RegexFilter({.pattern = "("}), ErrorKind::kBadFormat, "filter regex: pattern");
  EXPECT_ERROR(RegexFilter().apply("\xFF"), ErrorKind::kBadFormat, "not UTF-8");
}

}  // namespace
}  // namespace quiver::metrics
