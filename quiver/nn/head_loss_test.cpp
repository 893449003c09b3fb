#include "quiver/nn/head_loss.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/testing/draw.h"

namespace quiver::nn {
namespace {

using testing::draw;

class HeadLossTest : public ::testing::TestWithParam<torch::Dtype> {
 protected:
  double tolerance() const { return GetParam() == torch::kBFloat16 ? 3e-2 : 1e-5; }
};

/// The loss and its gradient against autograd through log softmax, in float64, without and with all that a head may do to logits.
TEST_P(HeadLossTest, EqualsCrossEntropyWithItsGradient) {
  const auto matrix = draw({301, 16}, 7).to(GetParam()), bias = draw({301}, 6).to(GetParam());
  const auto weight = draw({150}, 8).abs(), hidden = draw({150, 16}, 9, 0.3).to(GetParam());
  const auto target = torch::arange(150).remainder(301).to(torch::kLong);
  for (const auto& head : {Head{Linear(matrix)}, Head{Linear(matrix, bias), 0.7, 1.5}}) {
    SCOPED_TRACE(head.cap);
    const auto actual = head_loss_and_gradient(hidden, head, target, weight);
    const auto leaf = hidden.to(torch::kDouble).clone().requires_grad_();
    auto logits = leaf.matmul(matrix.to(torch::kDouble).t());
    if (head.cap > 0) logits = ((logits + bias.to(torch::kDouble)) / head.divisor / head.cap).tanh() * head.cap;
    const auto nll = torch::nll_loss(torch::log_softmax(logits, 1), target, {}, at::Reduction::None);
    const auto terms = nll * weight.to(torch::kDouble);
    terms.sum().backward();
    EXPECT_NEAR(actual.loss, terms.sum().item<double>(), tolerance() * std::abs(actual.loss));
    EXPECT_TRUE(torch::allclose(actual.terms.to(torch::kDouble), terms, tolerance(), tolerance()));
    EXPECT_TRUE(torch::allclose(actual.gradient.to(torch::kDouble), leaf.grad(), tolerance(), tolerance()));
  }
}

TEST_P(HeadLossTest, ScoresEqualLogSoftmax) {
  const auto head = draw({301, 16}, 7).to(GetParam());
  const auto hidden = draw({140, 16}, 9).to(GetParam());
  auto target = torch::arange(140).to(torch::kLong);
  const auto logits = hidden.matmul(head.t()).to(torch::kDouble);
  target.slice(0, 0, 140, 2).copy_(logits.argmax(1).slice(0, 0, 140, 2));
  const auto scores = score_targets(hidden, {Linear(head)}, target);
  const auto expected = torch::log_softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1);
  EXPECT_TRUE(torch::allclose(scores.log_prob.to(torch::kDouble), expected, 1e-4, 1e-4));
  EXPECT_TRUE(scores.is_greedy.equal(logits.argmax(1) == target));
}

TEST_P(HeadLossTest, ANanIsNeverLost) {
  const auto head = Linear(draw({301, 16}, 7).to(GetParam()));
  auto hidden = draw({2, 16}, 9).to(GetParam());
  hidden[1][3] = std::nan("");
  const auto scores = score_targets(hidden, {head}, torch::tensor({5, 5}, torch::kLong));
  EXPECT_TRUE(scores.log_prob.isnan().equal(torch::tensor({false, true})));
  const auto loss = head_loss_and_gradient(hidden, {head}, torch::tensor({5, 5}, torch::kLong), torch::ones({2}));
  EXPECT_TRUE(std::isnan(loss.loss));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, HeadLossTest, ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16));

}  // namespace
}  // namespace quiver::nn
