#include "quiver/routing/stacked_adapters.h"

#include <torch/utils.h>

#include <vector>

namespace quiver::routing {

StackedAdapters stack_adapters(std::span<const adapters::LoraPair> pairs, torch::Device device) {
  std::vector<torch::Tensor> a, b_t;
  std::vector<std::int64_t> owner;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    a.push_back(pairs[i].lora_a().detach().to(torch::kFloat));
    b_t.push_back((pairs[i].lora_b().detach().to(torch::kFloat) * pairs[i].scaling()).t());
    owner.insert(owner.end(), static_cast<std::size_t>(pairs[i].rank()), static_cast<std::int64_t>(i));
  }
  return {torch::cat(a).to(device), torch::cat(b_t).to(device), torch::tensor(owner, torch::kLong).to(device),
          static_cast<std::int64_t>(pairs.size())};
}

torch::Tensor stacked_update(const StackedAdapters& adapters, const torch::Tensor& x, const RoutingDecision& decision,
                             bool mix_parameters) {
  const auto weights = torch::zeros({x.size(0), adapters.num_adapters}, decision.weight.options())
                           .scatter_(1, decision.index, decision.weight)
                           .index_select(1, adapters.owner);                // [T, R]
  auto hidden = x.to(torch::kFloat).matmul(adapters.lora_a.t()) * weights;  // w_i A_i x
  if (mix_parameters) {
    const auto n = adapters.num_adapters, rank = hidden.size(1) / n;
    const auto mixed = hidden.view({x.size(0), n, rank}).sum(1, /*keepdim=*/true);  // [T, 1, r]
    hidden = (mixed * weights.view({x.size(0), n, rank})).flatten(1);
  }
  return hidden.matmul(adapters.scaled_b_t);
}

}  // namespace quiver::routing
