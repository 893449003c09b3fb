#include "quiver/testing/dense_mixture.h"

#include <torch/torch.h>

#include <vector>

namespace quiver::testing {
namespace {

/// sum_i w_i s_i B_i A_i, [d_out, d_in].
torch::Tensor mix_outputs(std::span<const lora::LoraPair> pairs, const torch::Tensor& weights) {
  auto delta = torch::zeros({pairs[0].out_features(), pairs[0].in_features()}, torch::kDouble);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    delta += weights[static_cast<std::int64_t>(i)] * pairs[i].to(torch::kCPU, torch::kDouble).delta();
  }
  return delta;
}

/// s (sum_i w_i B_i)(sum_i w_i A_i), [d_out, d_in].
torch::Tensor mix_parameters(std::span<const lora::LoraPair> pairs, const torch::Tensor& weights) {
  auto a = torch::zeros_like(pairs[0].lora_a(), torch::kDouble);
  auto b = torch::zeros_like(pairs[0].lora_b(), torch::kDouble);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    a += weights[static_cast<std::int64_t>(i)] * pairs[i].lora_a().to(torch::kDouble);
    b += weights[static_cast<std::int64_t>(i)] * pairs[i].lora_b().to(torch::kDouble);
  }
  return pairs[0].scaling() * b.matmul(a);
}

}  // namespace

torch::Tensor dense_mixture(const torch::Tensor& weight, std::span<const lora::LoraPair> pairs,
                            const routing::RoutingDecision& decision, const torch::Tensor& x, routing::Combine combine) {
  const torch::NoGradGuard no_grad;
  const auto num_adapters = static_cast<std::int64_t>(pairs.size());
  const auto all_weights = torch::zeros({x.size(0), num_adapters}, torch::kDouble)
                               .scatter_(1, decision.index.cpu(), decision.weight.to(torch::kCPU, torch::kDouble));
  auto y = x.to(torch::kCPU, torch::kDouble).matmul(weight.to(torch::kCPU, torch::kDouble).t());
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    const auto delta = combine == routing::Combine::kOutputs ? mix_outputs(pairs, all_weights[t])
                                                             : mix_parameters(pairs, all_weights[t]);
    y[t] += delta.matmul(x[t].to(torch::kCPU, torch::kDouble));
  }
  return y;
}

}  // namespace quiver::testing
