#include "quiver/text/unicode.h"

#include <gtest/gtest.h>

namespace quiver::text {
namespace {

TEST(Lowercase, IsThatOfUnicode) {
  EXPECT_EQ(lowercase("\u0130 \u212A \u1E9E \u01C5 \u2167 \u00DF"), "i\u0307 k \u00DF \u01C6 \u2177 \u00DF");
  EXPECT_EQ(lowercase("\u039F\u0394\u039F\u03A3 \u03A3\u0391"), "\u03BF\u03B4\u03BF\u03C2 \u03C3\u03B1");
}

// Expected values: str.lower of Python 3.11.
TEST(Lowercase, EndsAWordWithAFinalSigma) {
  EXPECT_EQ(lowercase("\u03A3"), "\u03C3");
  EXPECT_EQ(lowercase("1\u03A3"), "1\u03C3");
  EXPECT_EQ(lowercase("\u65E5\u03A3"), "\u65E5\u03C3");          // a letter without case
  EXPECT_EQ(lowercase("\u2167\u03A3"), "\u2177\u03C2");          // a Roman numeral has case
  EXPECT_EQ(lowercase("A\u03A3\u65E5"), "a\u03C2\u65E5");        // what follows has no case
  EXPECT_EQ(lowercase("A\u0301\u03A3"), "a\u0301\u03C2");        // marks are passed over on the left
  EXPECT_EQ(lowercase("A\u03A3\u0301B"), "a\u03C3\u0301b");      // and on the right
  EXPECT_EQ(lowercase("A'\u03A3.\u00ADB"), "a'\u03C3.\u00ADb");  // so is punctuation inside words
  EXPECT_EQ(lowercase("A\u03A3. B"), "a\u03C2. b");
  EXPECT_EQ(lowercase("\u02B0\u03A3"), "\u02B0\u03C3");  // a modifier letter is no letter here
  EXPECT_EQ(lowercase("A\u03A3\u03A3"), "a\u03C3\u03C2");
}

}  // namespace
}  // namespace quiver::text
