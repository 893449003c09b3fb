#include "quiver/testing/dense_mixture.h"

#include <torch/utils.h>

#include <vector>

namespace quiver::testing {
namespace {

/// f of every pair in float64, stacked: [N, ...].
template <typename F>
torch::Tensor stacked(std::span<const adapters::LoraPair> pairs, F f) {
  std::vector<torch::Tensor> parts;
  for (const auto& pair : pairs) parts.push_back(f(pair.to(torch::kCPU, torch::kDouble)));
  return torch::stack(parts);
}

}  // namespace

torch::Tensor dense_mixture(const torch::Tensor& weight, std::span<const adapters::LoraPair> pairs,
                            const routing::RoutingDecision& decision, const torch::Tensor& x, routing::Combine combine) {
  const torch::NoGradGuard no_grad;
  const auto num_adapters = static_cast<std::int64_t>(pairs.size());
  const auto all_weights = torch::zeros({x.size(0), num_adapters}, torch::kDouble)
                               .scatter_(1, decision.index.cpu(), decision.weight.to(torch::kCPU, torch::kDouble));
  const auto tokens = x.to(torch::kCPU, torch::kDouble);
  const auto y = tokens.matmul(weight.to(torch::kCPU, torch::kDouble).t());
  if (combine == routing::Combine::kOutputs) {
    const auto deltas = stacked(pairs, [](const adapters::LoraPair& pair) { return pair.delta(); });  // s_i B_i A_i
    return y + torch::einsum("tn,noi,ti->to", {all_weights, deltas, tokens});
  }
  const auto a = torch::einsum("tn,nri->tri", {all_weights, stacked(pairs, [](const auto& pair) { return pair.lora_a(); })});
  const auto b = torch::einsum("tn,nor->tor", {all_weights, stacked(pairs, [](const auto& pair) { return pair.lora_b(); })});
  return y + pairs[0].scaling() * torch::einsum("tor,tri,ti->to", {b, a, tokens});
}

}  // namespace quiver::testing
