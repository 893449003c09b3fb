// A fused operation against its definition.
#pragma once

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <functional>
#include <vector>

namespace quiver::testing {

/// Compares f in `dtype` (the fused kernels) with f in float64 (the definition), and the gradients of all inputs.
inline void expect_equals_definition(const std::function<torch::Tensor(const std::vector<torch::Tensor>&)>& f,
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

}  // namespace quiver::testing
