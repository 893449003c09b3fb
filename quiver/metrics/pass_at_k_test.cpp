#include "quiver/metrics/pass_at_k.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/testing/message_of.h"

namespace quiver::metrics {
namespace {

TEST(PassAtK, IsTheShareOfCorrectSamplesForOne) {
  EXPECT_DOUBLE_EQ(pass_at_k(10, 3, 1), 0.3);
  EXPECT_EQ(pass_at_k(10, 0, 1), 0);
  EXPECT_EQ(pass_at_k(10, 10, 1), 1);
}

TEST(PassAtK, CountsTheDrawsWithoutACorrectSample) {
  EXPECT_DOUBLE_EQ(pass_at_k(5, 2, 2), 0.7);  // 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10
  EXPECT_EQ(pass_at_k(5, 2, 4), 1);           // only three are wrong
  EXPECT_EQ(pass_at_k(5, 0, 5), 0);
}

TEST(PassAtK, DoesNotOverflowWithManySamples) { EXPECT_NEAR(pass_at_k(1'000'000, 1, 100'000), 0.1, 1e-12); }

TEST(PassAtK, RefusesCountsThatCannotBe) {
  EXPECT_ERROR(pass_at_k(5, 6, 1), ErrorKind::kUsage, "6 correct samples of 5");
  EXPECT_ERROR(pass_at_k(5, -1, 1), ErrorKind::kUsage, "-1 correct samples of 5");
  EXPECT_ERROR(pass_at_k(5, 2, 0), ErrorKind::kUsage, "pass@0 of 5 samples");
  EXPECT_ERROR(pass_at_k(5, 2, 6), ErrorKind::kUsage, "pass@6 of 5 samples");
  EXPECT_ERROR(pass_at_k(0, 0, 1), ErrorKind::kUsage, "pass@1 of 0 samples");
}

}  // namespace
}  // namespace quiver::metrics
