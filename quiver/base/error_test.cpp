#include "quiver/base/error.h"

#include <gtest/gtest.h>

#include "quiver/testing/message_of.h"

namespace quiver {
namespace {

TEST(Format, AcceptsEveryKindOfValue) {
  const std::string name = "q_proj";
  EXPECT_EQ(format("{} '{}' {:.2f} {} {:>4}", -3, name, 1.5f, true, std::size_t{7}), "-3 'q_proj' 1.50 true    7");
}

TEST(Fail, CarriesKindAndMessage) {
  EXPECT_EQ(testing::message_of(ErrorKind::kMismatch, [] { fail(ErrorKind::kMismatch, "rank {} is not {}", 4, 8); }), "rank 4 is not 8");
  EXPECT_EQ(exit_code(ErrorKind::kMismatch), 3);
}

}  // namespace
}  // namespace quiver
