#include "quiver/base/error.h"

#include <gtest/gtest.h>

namespace quiver {
namespace {

TEST(Format, AcceptsEveryKindOfValue) {
  const std::string name = "q_proj";
  EXPECT_EQ(format("{} '{}' {:.2f} {} {:>4}", -3, name, 1.5f, true, std::size_t{7}), "-3 'q_proj' 1.50 true    7");
}

TEST(Fail, CarriesKindAndMessage) {
  try {
    fail(ErrorKind::kMismatch, "rank {} is not {}", 4, 8);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kMismatch);
    EXPECT_STREQ(error.what(), "rank 4 is not 8");
    EXPECT_EQ(exit_code(error.kind()), 3);
    return;
  }
  FAIL() << "nothing was thrown";
}

}  // namespace
}  // namespace quiver
