#include "quiver/tensor/quantile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::tensor {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

TEST(MagnitudeQuantile, IsTorchsOfTheMagnitudes) {
  const auto x = testing::draw({7, 31}, 1).to(torch::kDouble);
  for (const double quantile : {0.0, 0.1, 0.5, 0.77, 1.0}) {
    SCOPED_TRACE(quantile);
    EXPECT_NEAR(magnitude_quantile(x, quantile), torch::quantile(x.abs(), quantile).item<double>(), 1e-15);
    EXPECT_NEAR(magnitude_quantile(x.to(torch::kFloat).t(), quantile), torch::quantile(x.abs(), quantile).item<double>(), 1e-6);
  }
}

TEST(MagnitudeQuantile, TellsApartWhatFloat32DoesNot) {
  EXPECT_EQ(magnitude_quantile(torch::tensor({1.0, -1.0 - 1e-12}, torch::kDouble), 1), 1 + 1e-12);
}

TEST(MagnitudeQuantile, RefusesWhatHasNone) {
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { magnitude_quantile(torch::ones({3}), -0.1); }), HasSubstr("-0.1 is not a quantile"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { magnitude_quantile(torch::empty({0}), 0.5); }), HasSubstr("no entries"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { magnitude_quantile(torch::full({3}, std::nan("")), 0.5); }), HasSubstr("NaN"));
}

}  // namespace
}  // namespace quiver::tensor
