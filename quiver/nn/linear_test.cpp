#include "quiver/nn/linear.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/nn/full_weight.h"
#include "quiver/nn/tap.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::nn {
namespace {

using testing::draw;

torch::Tensor wide(const torch::Tensor& t) { return t.to(torch::kDouble); }

/// Every storage format of a matrix against its definition, for any number of rows.
TEST(Linear, EqualsItsDefinitionWithTheGradientOfX) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const double tolerance = dtype == torch::kBFloat16 ? 2e-2 : 1e-5;
    for (const std::int64_t rows : {0, 1, 3, 16, 65, 300}) {
      SCOPED_TRACE(rows);
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(with_bias);
        const auto weight = draw({48, 40}, 1).to(dtype), bias = draw({48}, 2).to(dtype);
        const Linear linear(weight, with_bias ? bias : torch::Tensor());
        const auto x = draw({rows, 40}, 3).to(dtype), dy = draw({rows, 48}, 4).to(dtype), onto = draw({rows, 40}, 5).to(dtype);
        const auto y = linear.forward(x);
        auto expected = wide(x).matmul(wide(weight).t());
        if (with_bias) expected += wide(bias);
        EXPECT_TRUE(torch::allclose(wide(y), expected, tolerance, tolerance));
        EXPECT_EQ(y.scalar_type(), dtype);
        LinearRecord record;
        auto dx = onto;
        linear.backward(dy, x, &dx, {}, record);
        EXPECT_TRUE(torch::allclose(wide(dx), wide(dy).matmul(wide(weight)) + wide(onto), tolerance, tolerance));
        EXPECT_TRUE(linear.weight().dense().equal(weight));
        EXPECT_EQ(linear.num_parameters(), 48 * 40 + (with_bias ? 48 : 0));
      }
    }
  }
}

TEST(Linear, RefusesWhatIsNoLinearMap) {
  EXPECT_ERROR(Linear(torch::zeros({3})), ErrorKind::kMismatch, "not a linear map: weight is Float [3]");
  EXPECT_ERROR(Linear(torch::zeros({3, 2}), torch::zeros({2})), ErrorKind::kMismatch, "weight is Float [3, 2] and bias is Float [2]");
}

TEST(Linear, AnswersThroughItsUpdatesInTheirOrder) {
  const Linear linear(draw({6, 4}, 1));
  std::vector<std::string> seen;
  const auto tap = [&](const char* name) {
    return std::make_shared<Tap>([&seen, name](const torch::Tensor& x, const Rows& rows) {
      seen.push_back(std::string(name) + std::to_string(x.size(0)) + "@" + std::to_string(rows.first_row));
    });
  };
  const auto x = draw({3, 4}, 2), onto = draw({3, 6}, 3);
  LinearRecord record;
  const auto y = linear.with(tap("low")).with(tap("high")).forward(x, onto, {.first_row = 5}, record);
  EXPECT_TRUE(torch::allclose(y, onto + linear.forward(x), 1e-6, 1e-6));
  EXPECT_EQ(seen, (std::vector<std::string>{"high3@5", "low3@5"}));
}

TEST(FullWeight, TakesThePlaceOfTheMapBelowWithItsBias) {
  const auto weight = draw({6, 4}, 1).to(torch::kDouble), bias = draw({6}, 2).to(torch::kDouble);
  const auto sink = std::make_shared<GradientSink>();
  sink->sums = {torch::zeros_like(weight), torch::zeros_like(bias)};
  const auto linear =
      Linear(draw({6, 4}, 9).to(torch::kDouble)).with(TrainedUpdate{std::make_shared<FullWeight>(weight, bias, torch::kDouble), sink});
  const auto x = draw({5, 4}, 3).to(torch::kDouble), onto = draw({5, 6}, 4).to(torch::kDouble), dy = draw({5, 6}, 5).to(torch::kDouble);
  LinearRecord record;
  EXPECT_TRUE(torch::allclose(linear.forward(x, onto, {}, record), onto + x.matmul(weight.t()) + bias));
  torch::Tensor dx;
  linear.backward(dy, x, &dx, {}, record);
  for (int batch = 0; batch < 2; ++batch) linear.add_gradients(record);
  EXPECT_TRUE(torch::allclose(dx, dy.matmul(weight)));
  EXPECT_TRUE(torch::allclose(sink->sums[0], 2 * dy.t().matmul(x)));
  EXPECT_TRUE(torch::allclose(sink->sums[1], 2 * dy.sum(0)));
}

TEST(RowGroups, AreThoseOfTheRows) {
  const std::vector<std::int32_t> groups = {4, 4, 7, 1, 0};
  EXPECT_TRUE(row_groups({}, 3).empty());
  EXPECT_EQ(row_groups({.first_row = 1, .groups = groups.data()}, 3), (std::vector<std::int32_t>{4, 7, 1}));
  EXPECT_EQ(row_groups({.index = torch::tensor({4, 0, 2}, torch::kLong), .groups = groups.data()}, 3),
            (std::vector<std::int32_t>{0, 4, 7}));
}

}  // namespace
}  // namespace quiver::nn
