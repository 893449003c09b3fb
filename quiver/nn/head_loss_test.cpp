#include "quiver/nn/head_loss.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/testing/draw.h"
#include "quiver/testing/equals_definition.h"

namespace quiver::nn {
namespace {

using testing::draw;
using testing::expect_equals_definition;

class HeadLossTest : public ::testing::TestWithParam<torch::Dtype> {
 protected:
  double tolerance() const { return GetParam() == torch::kFloat ? 1e-5 : 3e-2; }
};

TEST_P(HeadLossTest, HeadLossEqualsCrossEntropy) {
  const auto head = draw({301, 16}, 7);
  const auto target = torch::arange(150).remainder(301).to(torch::kLong);
  const auto weight = draw({150}, 8).abs();
  expect_equals_definition(
      [&](const auto& in) {
        const auto w = head.to(GetParam()).to(in[0].scalar_type());
        if (in[0].scalar_type() != torch::kDouble) return head_loss(in[0], DenseProjection(w), target, weight);
        const auto nll = torch::nll_loss(torch::log_softmax(in[0].matmul(w.t()), 1), target, {}, at::Reduction::None);
        return (nll * weight.to(torch::kDouble)).sum();
      },
      {draw({150, 16}, 9, 0.3)}, GetParam(), tolerance());
}

TEST_P(HeadLossTest, HeadLossInFloat64EqualsCrossEntropy) {
  const auto head = draw({31, 16}, 7).to(torch::kDouble);
  auto hidden = draw({5, 16}, 9).to(torch::kDouble).requires_grad_();
  const auto target = torch::tensor({3, 0, 30, 7, 7}, torch::kLong);
  const auto weight = torch::ones({5});
  head_loss(hidden, DenseProjection(head), target, weight).backward();
  const auto actual = hidden.grad().clone();
  hidden.mutable_grad() = torch::Tensor();
  torch::nll_loss(torch::log_softmax(hidden.matmul(head.t()), 1), target, {}, at::Reduction::Sum).backward();
  EXPECT_TRUE(torch::allclose(actual, hidden.grad(), 1e-12, 1e-12));
}

TEST_P(HeadLossTest, ScoresEqualLogSoftmax) {
  const auto head = draw({301, 16}, 7).to(GetParam());
  const auto hidden = draw({140, 16}, 9).to(GetParam());
  auto target = torch::arange(140).to(torch::kLong);
  const auto logits = hidden.matmul(head.t()).to(torch::kFloat);
  target.slice(0, 0, 140, 2).copy_(logits.argmax(1).slice(0, 0, 140, 2));
  const auto scores = score_targets(hidden, DenseProjection(head), target);
  const auto expected = torch::log_softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1);
  EXPECT_TRUE(torch::allclose(scores.log_prob, expected, 1e-4, 1e-4));
  EXPECT_TRUE(scores.is_greedy.equal(logits.argmax(1) == target));
}

TEST_P(HeadLossTest, ANanIsNeverLost) {
  const auto head = DenseProjection(draw({301, 16}, 7).to(GetParam()));
  auto hidden = draw({2, 16}, 9).to(GetParam());
  hidden[1][3] = std::nan("");
  const auto scores = score_targets(hidden, head, torch::tensor({5, 5}, torch::kLong));
  EXPECT_TRUE(scores.log_prob.isnan().equal(torch::tensor({false, true})));
  const auto loss = head_loss_and_gradient(hidden, head, torch::tensor({5, 5}, torch::kLong), torch::ones({2}));
  EXPECT_TRUE(std::isnan(loss.loss));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, HeadLossTest, ::testing::Values(torch::kFloat, torch::kBFloat16));

}  // namespace
}  // namespace quiver::nn
