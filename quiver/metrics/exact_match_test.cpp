#include "quiver/metrics/exact_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

using Texts = std::vector<std::string>;
const std::string kNul(1, '\0');

bool matches(const std::string& prediction, const Texts& references, const ExactMatchOptions& options = {}) {
  return ExactMatch(options).matches_any(prediction, references);
}

TEST(ExactMatch, ComparesAllCharacters) {
  EXPECT_TRUE(matches("a B.", {"a B."}));
  EXPECT_FALSE(matches("a B.", {"a b."}));
  EXPECT_FALSE(matches("a ", {"a"}));
  EXPECT_TRUE(matches("", {""}));
  EXPECT_FALSE(matches("\u00E9", {"e\u0301"}));  // no normal form
}

TEST(ExactMatch, IgnoresWhatItIsAskedTo) {
  EXPECT_TRUE(matches("\u00C9t\u00C9", {"\u00E9t\u00E9"}, {.ignore_case = true}));
  EXPECT_FALSE(matches("a.", {"A"}, {.ignore_case = true}));
  EXPECT_TRUE(matches("(a.)", {"a"}, {.ignore_punctuation = true}));
  EXPECT_FALSE(matches("a\u3002", {"a"}, {.ignore_punctuation = true}));
  EXPECT_TRUE(matches("a12", {"3a"}, {.ignore_numbers = true}));
  EXPECT_TRUE(matches("A1!", {"a"}, {.ignore_case = true, .ignore_punctuation = true, .ignore_numbers = true}));
}

TEST(ExactMatch, RemovesPatternsInTurnAndFirst) {
  EXPECT_TRUE(matches("$1,000.", {"1000"}, {.regexes_to_ignore = {",", "\\$", "\\.$"}}));
  EXPECT_TRUE(matches("abc", {""}, {.regexes_to_ignore = {"b", "ac"}}));
  EXPECT_FALSE(matches("abc", {""}, {.regexes_to_ignore = {"ac", "b"}}));
  EXPECT_FALSE(matches("A", {""}, {.ignore_case = true, .regexes_to_ignore = {"a"}}));  // the case is ignored after
}

TEST(ExactMatch, TakesOneOfTheReferences) {
  EXPECT_TRUE(matches("b", {"a", "b"}));
  EXPECT_FALSE(matches("c", {"a", "b"}));
}

TEST(ExactMatch, DoesNotSeeNulAtTheEnd) {
  EXPECT_TRUE(matches("a" + kNul, {"a"}));
  EXPECT_FALSE(matches("a" + kNul + "b", {"ab"}));
  EXPECT_TRUE(matches("a" + kNul + ".", {"a"}, {.ignore_punctuation = true}));
  // The first pattern sees it, the second does not.
  EXPECT_FALSE(matches("a" + kNul, {""}, {.regexes_to_ignore = {"a\\Z"}}));
  EXPECT_TRUE(matches("a" + kNul, {""}, {.regexes_to_ignore = {"x", "a\\Z"}}));
}

TEST(ExactMatch, LosesWhatLowerCaseAdds) {
  EXPECT_TRUE(matches("\u0130", {"i"}, {.ignore_case = true}));
  EXPECT_FALSE(matches("\u0130", {"i\u0307"}, {.ignore_case = true}));
  // The longest reference makes room for all.
  EXPECT_FALSE(matches("i", {"\u0130", "long"}, {.ignore_case = true}));
  EXPECT_TRUE(matches("i\u0307", {"\u0130", "long"}, {.ignore_case = true}));
  EXPECT_TRUE(matches("\u0130" + kNul, {"i\u0307"}, {.ignore_case = true}));
}

TEST(ExactMatch, RefusesNoReferenceBadTextAndBadPatterns) {
  EXPECT_ERROR(matches("a", {}), ErrorKind::kUsage, "at least one reference");
  EXPECT_ERROR(matches("\xFF", {"a"}), ErrorKind::kBadFormat, "the prediction of 1 bytes is not UTF-8");
  EXPECT_ERROR(matches("a", {"\xFF"}), ErrorKind::kBadFormat, "the reference of 1 bytes is not UTF-8");
  EXPECT_ERROR(ExactMatch({.regexes_to_ignore = {"a", "("}}), ErrorKind::kBadFormat, "regexes_to_ignore[1]");
}

TEST(NormalizedAnswer, IsLowerCaseWithoutPunctuationAndWithSingleSpaces) {
  EXPECT_EQ(normalized_answer("  The\u2003CAT's, -- mat.\n"), "the cats mat");
  EXPECT_EQ(normalized_answer("\u039F\u0394\u039F\u03A3 \u0130"), "\u03BF\u03B4\u03BF\u03C2 i\u0307");
  EXPECT_EQ(normalized_answer(" ... "), "");
}

TEST(HasNormalizedAnswer, TakesOneOfTheReferences) {
  EXPECT_TRUE(has_normalized_answer("Yes.", Texts{"no", "yes"}));
  EXPECT_FALSE(has_normalized_answer("the yes", Texts{"yes"}));
}

TEST(HasNormalizedAnswer, RefusesNoReferenceAndBadText) {
  EXPECT_ERROR(has_normalized_answer("a", {}), ErrorKind::kUsage, "at least one reference");
  EXPECT_ERROR(normalized_answer("\xFF"), ErrorKind::kBadFormat, "the answer of 1 bytes is not UTF-8");
}

}  // namespace
}  // namespace quiver::metrics
