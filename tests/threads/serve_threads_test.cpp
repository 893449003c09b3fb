// Clients of one engine's thread, and assignments that are replaced meanwhile: make tsan looks on.
#include <gtest/gtest.h>

#include <iostream>

#include "quiver/serve/test_support.h"

namespace quiver::serve {
namespace {

TEST(ServeThreads, EveryAnswerIsThatOfItsOwnAssignment) {
  const auto run = run_clients({.num_threads = 4, .requests_each = 300});
  EXPECT_EQ(run.num_wrong, 0);
  EXPECT_GT(run.num_ended, 900);
  EXPECT_EQ(run.num_open, 0);
  std::cout << static_cast<double>(run.num_tokens) / run.seconds << " tokens/s\n";
}

}  // namespace
}  // namespace quiver::serve
