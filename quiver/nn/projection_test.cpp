#include "quiver/nn/projection.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::nn {
namespace {

using testing::draw;

/// Blocked weights (bfloat16 on a CPU that multiplies it) and plain ones against their definition, for any number of rows.
TEST(DenseProjection, EqualsLinearWithGradients) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const double tolerance = dtype == torch::kBFloat16 ? 2e-2 : 1e-5;
    for (const std::int64_t rows : {0, 1, 3, 16, 65, 300}) {
      SCOPED_TRACE(rows);
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(with_bias);
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
  EXPECT_ERROR(DenseProjection(torch::zeros({3})), ErrorKind::kMismatch, "not a linear map: weight is Float [3]");
  EXPECT_ERROR(DenseProjection(torch::zeros({3, 2}), torch::zeros({2})), ErrorKind::kMismatch,
               "weight is Float [3, 2] and bias is Float [2]");
}

}  // namespace
}  // namespace quiver::nn
