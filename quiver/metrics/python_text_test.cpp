#include "quiver/metrics/python_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Strip, RemovesWhatPythonCallsSpace) {
  EXPECT_EQ(strip(" \t\n\v\f\r\x1C\x1D\x1E\x1F\u0085\u00A0\u1680\u2000\u200A\u2028\u2029\u202F\u205F\u3000 a b\u3000\x1F"), "a b");
  EXPECT_EQ(strip_left("\u2003 a "), "a ");
  EXPECT_EQ(strip(" \u00A0"), "");
  EXPECT_EQ(strip(""), "");
}

TEST(Strip, KeepsWhatPythonDoesNotCallSpace) {
  // Zero-width space, byte order mark, Mongolian vowel separator, word joiner, NUL.
  const std::string text = std::string("\u200B\uFEFF\u180E\u2060") + '\0';
  EXPECT_EQ(strip(text), text);
}

TEST(SplitAtSpace, GivesNoEmptyPart) {
  EXPECT_THAT(split_at_space(" a\u2003\u3000b \x1C c"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(split_at_space(" \n"), IsEmpty());
  EXPECT_THAT(split_at_space(""), IsEmpty());
}

TEST(WithoutPunctuation, RemovesAsciiAlone) {
  EXPECT_EQ(without_punctuation("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"), "");
  EXPECT_EQ(without_punctuation("a. b\u3002 \u00BFc\u2019d\u2014 1\x7F"), "a b\u3002 \u00BFc\u2019d\u2014 1\x7F");
}

TEST(WithoutDigits, RemovesAsciiAlone) { EXPECT_EQ(without_digits("0a1b 23456789 \u0661\u00B2"), "ab  \u0661\u00B2"); }

TEST(CheckUtf8, NamesTheText) {
  EXPECT_NO_THROW(check_utf8("\u00E9", "prediction"));
  EXPECT_ERROR(check_utf8("a\xFF", "prediction"), ErrorKind::kBadFormat, "the prediction of 2 bytes is not UTF-8");
}

}  // namespace
}  // namespace quiver::metrics
