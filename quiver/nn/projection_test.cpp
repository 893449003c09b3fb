#include "quiver/nn/projection.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"

namespace quiver::nn {
namespace {

using testing::draw;

/// Blocked weights (bfloat16 on a CPU that multiplies it) and plain ones against their definition, for any number of rows.
TEST(DenseProjection, EqualsLinearWithGradients) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    const double tolerance = dtype == torch::kBFloat16 ? 2e-2 : 1e-5;
    for (const std::int64_t rows : {0, 1, 3, 16, 65, 300}) {
      for (const bool with_bias : {false, true}) {
        const auto weight = draw({48, 40}, 1).to(dtype), bias = draw({48}, 2).to(dtype);
        const DenseProjection projection(weight, with_bias ? bias : torch::Tensor());
        auto x = draw({rows, 40}, 3).to(dtype).requires_grad_();
        const auto upstream = draw({rows, 48}, 4).to(dtype);
        const auto y = projection.forward(x);
        y.backward(upstream);
        const auto wide = [](const torch::Tensor& t) { return t.detach().to(torch::kDouble); };
        auto expected = wide(x).matmul(wide(weight).t());
        if (with_bias) expected += wide(bias);
        EXPECT_TRUE(torch::allclose(wide(y), expected, tolerance, tolerance)) << rows;
        EXPECT_TRUE(torch::allclose(wide(x.grad()), wide(upstream).matmul(wide(weight)), tolerance, tolerance)) << rows;
        EXPECT_TRUE(projection.backward(upstream).equal(x.grad())) << rows;
        EXPECT_TRUE(projection.base_weight().equal(weight));
        EXPECT_EQ(y.scalar_type(), dtype);
      }
    }
  }
}

TEST(DenseProjection, RefusesWhatIsNoLinearMap) {
  EXPECT_THROW(DenseProjection(torch::zeros({3})), Error);
  EXPECT_THROW(DenseProjection(torch::zeros({3, 2}), torch::zeros({2})), Error);
}

}  // namespace
}  // namespace quiver::nn
