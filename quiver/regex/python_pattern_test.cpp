#include "quiver/regex/python_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "quiver/io/json.h"
#include "quiver/testing/message_of.h"

namespace quiver::regex {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

/// What Quiver does not translate, with a part of its message. All else of the table must mean what it means in Python.
const std::map<std::string, std::string> kRefused = {
    {"(a)?(?(1)a|b)", "a condition on a group at byte 6"},
    {"(?P<a>a)?(?(a)a|b).*", "a condition on a group"},
    {"\\N{DIGIT ONE}", "a character by its name"},
    {"a{1001}", "a repeat count above 1000"},
    {"(a)(?<=\\1)b", "a reference inside a look-behind"},
    {"\\ud800", "half of a surrogate pair"},
    {"(?P<\u00e9>a)", "a group's name outside ASCII"},
    {"(?a)caf.", "the flag 'a'"},
    {"(?x) a a b", "the flag 'x'"},
    {"(?i)caf\u00e9", "(?i) together with characters outside ASCII"},
};

bool is_refused(const std::string& pattern) { return kRefused.contains(pattern) || pattern.starts_with(std::string(101, '(')); }

/// A bit per name, or "error" for a pattern that Python refuses. A name that `run` refuses has the bit of Python.
std::string bits_of(const nlohmann::json& names, const std::string& expected, const std::function<bool(const std::string&)>& run) {
  std::string bits;
  for (const auto& name : names) {
    try {
      bits += run(name) ? '1' : '0';
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kBadFormat) return "error";
      EXPECT_THAT(error.what(), HasSubstr("a pattern with (?i) cannot be matched with"));
      bits += expected.at(bits.size());
    }
  }
  return bits;
}

TEST(PythonPattern, MatchesTheNamesThatPythonMatches) {
  const auto cases = io::read_json_file("tests/golden/regex/cases.json");
  const auto& names = cases.at("names");
  int compared = 0;
  for (const auto& row : cases.at("patterns")) {
    const std::string pattern = row.at("pattern");
    if (is_refused(pattern)) continue;
    const auto compare = [&](const std::string& expected, const std::function<bool(const std::string&)>& run) {
      const bool has_bits = expected.find_first_not_of("01") == std::string::npos;
      EXPECT_EQ(bits_of(names, expected, run), has_bits ? expected : "error") << pattern << "\n" << expected;
      ++compared;
    };
    compare(row.at("target_modules"), [&](const std::string& name) { return PythonPattern(pattern, "t").full_match(name); });
    compare(row.at("pattern_key"),
            [&](const std::string& name) { return PythonPattern(pattern, "t", {.before = "(.*\\.)?(", .after = ")$"}).match(name); });
  }
  EXPECT_GT(compared, 440);
}

TEST(PythonPattern, RefusesByNameWhatItDoesNotTranslate) {
  for (const auto& [pattern, reason] : kRefused) {
    EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { PythonPattern(pattern, "file: key"); }),
                HasSubstr("file: key: the regular expression '" + pattern + "' has " + reason));
  }
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [] { PythonPattern("\\q", "t"); }), HasSubstr("it has the escape '\\q' at byte 2"));
}

TEST(PythonPattern, RefusesGroupsBeyondTheLimitWithAShortMessage) {
  for (const std::size_t depth : {101, 60'000}) {
    const auto pattern = std::string(depth, '(') + "a" + std::string(std::min<std::size_t>(depth, 5'000), ')');
    EXPECT_EQ(message_of(ErrorKind::kUnsupported, [&] { PythonPattern(pattern, "t"); }),
              "t: the regular expression '" + std::string(100, '(') +
                  "...' has groups nested deeper than 100 at byte 101, which Quiver does not implement");
  }
  EXPECT_EQ(message_of(ErrorKind::kUnsupported, [] { PythonPattern(std::string(200'000, '('), "t"); }),
            "t: a regular expression of 200000 bytes; at most 65536 are read");
}

TEST(PythonPattern, SaysWhereAnExpressionIsNone) {
  EXPECT_EQ(message_of(ErrorKind::kBadFormat, [] { PythonPattern("a(b", "t", {.before = "(.*\\.)?(", .after = ")$"}); }),
            "t: 'a(b' is no regular expression of Python: it has a group without ')' at byte 3");
  EXPECT_EQ(message_of(ErrorKind::kBadFormat, [] { PythonPattern("a**", "t"); }),
            "t: 'a**' is no regular expression of Python: it has a repeat of a repeat at byte 3");
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [] { PythonPattern("\xff", "t"); }), HasSubstr("not valid UTF-8"));
}

TEST(PythonPattern, BoundsBacktracking) {
  const PythonPattern pattern("(?:x+x+)+[yz]", "file: key");
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { pattern.full_match(std::string(60, 'x')); }),
              HasSubstr("file: key: the pattern cannot be matched in a text of 60 bytes at byte 0: match limit exceeded"));
}

TEST(PythonPattern, IgnoresCaseInAsciiOnly) {
  const PythonPattern pattern("(?i)k", "t");
  EXPECT_TRUE(pattern.full_match("K"));
  EXPECT_EQ(message_of(ErrorKind::kUnsupported, [&] { pattern.full_match("\u212A"); }),
            "t: a pattern with (?i) cannot be matched with '\u212A', which is not ASCII");
}

TEST(PythonPattern, RefusesTextsThatAreNotUtf8) {
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [] { PythonPattern(".", "t").full_match("\xff"); }), HasSubstr("UTF-8 error"));
}

TEST(PythonPattern, GivesTheLastGroup) {
  EXPECT_EQ(PythonPattern("(a)-(b+)", "t").last_group("a-bbc"), "bb");
  EXPECT_EQ(PythonPattern("(a)-(b+)?", "t").last_group("a-c"), std::nullopt);
  EXPECT_EQ(PythonPattern("(a)", "t").last_group("b"), std::nullopt);
}

/// "begin-end" of every match.
std::string places_of(const std::string& pattern, std::string_view text) {
  std::string places;
  for (const auto& groups : PythonPattern(pattern, "t").find_all(text)) places += format("{}-{} ", groups[0]->begin, groups[0]->end);
  return places;
}

// Expected values: re.finditer of Python 3.11, in bytes.
TEST(PythonPattern, FindsAllMatchesAsPythonDoes) {
  EXPECT_EQ(places_of("a|b", "ab\u00E9a"), "0-1 1-2 4-5 ");
  EXPECT_EQ(places_of("x*", "b\u00E9"), "0-0 1-1 3-3 ");
  EXPECT_EQ(places_of("a*", "baa"), "0-0 1-3 3-3 ");          // an empty match after another
  EXPECT_EQ(places_of("a??", "aa"), "0-0 0-1 1-1 1-2 2-2 ");  // and a longer one after an empty one
  EXPECT_EQ(places_of("(?<=a)|b", "aab"), "1-1 2-2 2-3 ");
  EXPECT_EQ(places_of("$", "a\n"), "1-1 2-2 ");
  EXPECT_EQ(places_of("^", "aa"), "0-0 ");
  EXPECT_EQ(places_of("b", "aa"), "");
  EXPECT_EQ(places_of("", ""), "0-0 ");
}

TEST(PythonPattern, FindsTheGroupsOfEveryMatch) {
  const auto matches = PythonPattern("(a)|(b)", "t").find_all("ab");
  ASSERT_EQ(matches.size(), 2u);
  EXPECT_EQ(matches[1].size(), 3u);
  EXPECT_FALSE(matches[1][1].has_value());
  EXPECT_EQ(matches[1][2]->begin, 1);
}

TEST(PythonPattern, RemovesItsMatches) {
  EXPECT_EQ(PythonPattern("a??", "t").without_matches("aab\u00E9a"), "b\u00E9");
  EXPECT_EQ(PythonPattern("x*", "t").without_matches("ab"), "ab");
  EXPECT_EQ(PythonPattern("[,$]", "t").without_matches("$1,000"), "1000");
}

TEST(PythonPattern, FindsNothingInOtherBytes) {
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [] { PythonPattern("a", "t").find_all("a\xFF"); }),
              HasSubstr("t: the pattern is to be matched in a text of 2 bytes that are not UTF-8"));
}

TEST(Pattern, FindsMatchesFromLeftToRight) {
  std::vector<Match> matches;
  Pattern("a*", "t").find_all("b\u00e9aa", matches);
  std::vector<std::pair<std::int64_t, std::int64_t>> places;
  for (const auto& [begin, end] : matches) places.emplace_back(begin, end);
  EXPECT_THAT(places, ElementsAre(std::pair(0, 0), std::pair(1, 1), std::pair(3, 5)));
}

}  // namespace
}  // namespace quiver::regex
