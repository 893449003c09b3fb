#include "quiver/base/utf8.h"

#include <gtest/gtest.h>

namespace quiver {
namespace {

TEST(CountCodePoints, CountsCharactersNotBytes) {
  EXPECT_EQ(count_code_points(""), 0);
  EXPECT_EQ(count_code_points("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), 4);
}

}  // namespace
}  // namespace quiver
