#include "quiver/nn/ops.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <functional>

#include "quiver/testing/draw.h"

namespace quiver::nn {
namespace {

/// Compares f in `dtype` (the fused kernels) with f in float64 (the definition), and the gradients of all inputs.
void expect_equals_definition(const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& f,
                              const std::vector<torch::Tensor>& inputs, torch::Dtype dtype, double tolerance) {
  const auto run = [&](torch::Dtype compute) {
    std::vector<torch::Tensor> leaves;
    for (const auto& input : inputs) leaves.push_back(input.to(dtype).to(compute).detach().requires_grad_());
    const auto y = f(leaves);
    auto generator = at::detail::createCPUGenerator(99);
    const auto upstream = torch::randn(y.sizes(), generator, torch::kFloat).to(dtype).to(y.scalar_type());
    y.backward(upstream);
    std::vector<torch::Tensor> result = {y.detach().to(torch::kDouble)};
    for (const auto& leaf : leaves) result.push_back(leaf.grad().to(torch::kDouble));
    return result;
  };
  const auto expected = run(torch::kDouble), actual = run(dtype);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(torch::allclose(actual[i], expected[i], tolerance, tolerance))
        << "result " << i << " off by " << (actual[i] - expected[i]).abs().max().item<double>();
  }
}

using testing::draw;

class Ops : public ::testing::TestWithParam<torch::Dtype> {
 protected:
  double tolerance() const { return GetParam() == torch::kFloat ? 1e-5 : 3e-2; }
};

TEST_P(Ops, RmsNormEqualsItsDefinition) {
  const auto weight = draw({130}, 2) + 1;
  expect_equals_definition([&](const auto& in) { return rms_norm(in[0], weight, 1e-5); }, {draw({37, 130}, 1)}, GetParam(), tolerance());
}

TEST_P(Ops, RotateEqualsItsDefinition) {
  const auto angles = draw({21, 4}, 3, 3);
  expect_equals_definition([&](const auto& in) { return rotate(in[0], angles.cos(), angles.sin()); }, {draw({21, 3, 8}, 4)}, GetParam(),
                           tolerance());
}

TEST_P(Ops, SwigluEqualsItsDefinition) {
  expect_equals_definition([](const auto& in) { return swiglu(in[0], in[1]); }, {draw({19, 77}, 5, 4), draw({19, 77}, 6)}, GetParam(),
                           tolerance());
}

TEST_P(Ops, HeadLossEqualsCrossEntropy) {
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

TEST_P(Ops, HeadLossInFloat64EqualsCrossEntropy) {
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

TEST_P(Ops, ScoresEqualLogSoftmax) {
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

TEST_P(Ops, ANanIsNeverLost) {
  const auto head = DenseProjection(draw({301, 16}, 7).to(GetParam()));
  auto hidden = draw({2, 16}, 9).to(GetParam());
  hidden[1][3] = std::nan("");
  const auto scores = score_targets(hidden, head, torch::tensor({5, 5}, torch::kLong));
  EXPECT_TRUE(scores.log_prob.isnan().equal(torch::tensor({false, true})));
  const auto loss = head_loss_and_gradient(hidden, head, torch::tensor({5, 5}, torch::kLong), torch::ones({2}));
  EXPECT_TRUE(std::isnan(loss.loss));
  EXPECT_TRUE(swiglu(hidden, hidden).isnan().equal(hidden.isnan()));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Ops, ::testing::Values(torch::kFloat, torch::kBFloat16));

}  // namespace
}  // namespace quiver::nn
