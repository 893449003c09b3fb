#include <torch/utils.h>

#include <vector>

#include "quiver/backend/cuda/columns.h"

// Two products over all adapters, in which those that a token did not choose weigh 0: work grows with the sum of ranks and not with k, but
// a GPU does these two sooner than N pairs of small ones.
namespace quiver::backend::cuda {
namespace {

/// The factors one below another, R being the sum of their ranks: lora_a [R, d_in] and lora_b [R, d_out], the rows of s_i B_i^T, float32;
/// owner [R] int64, the adapter that a row is of.
RoutedLayout pack_adapters(std::span<const LoraFactors> factors, torch::Device device) {
  std::vector<Tensor> a, b_t;
  std::vector<std::int64_t> owner;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const auto& [lora_a, lora_b, scaling] = factors[i];
    a.push_back(lora_a.to(torch::kFloat));
    b_t.push_back((lora_b.to(torch::kFloat) * scaling).t());
    owner.insert(owner.end(), static_cast<std::size_t>(lora_a.size(0)), static_cast<std::int64_t>(i));
  }
  return {.lora_a = torch::cat(a).to(device), .lora_b = torch::cat(b_t).to(device), .owner = torch::tensor(owner, torch::kLong).to(device)};
}

void add_routed(const RoutedAdapters& adapters, const Tensor& x, const Chosen& chosen, Combine combine, const Tensor& y) {
  const auto num_adapters = static_cast<std::int64_t>(adapters.factors.size());
  const auto weights = torch::zeros({x.size(0), num_adapters}, chosen.weight.options())
                           .scatter_(1, chosen.index, chosen.weight)
                           .index_select(1, adapters.layout.owner);                // [T, R]
  auto hidden = x.to(torch::kFloat).matmul(adapters.layout.lora_a.t()) * weights;  // w_i A_i x
  if (combine == Combine::kParams) {
    const auto rank = hidden.size(1) / num_adapters;
    const auto mixed = hidden.view({x.size(0), num_adapters, rank}).sum(1, /*keepdim=*/true);  // [T, 1, r]
    hidden = (mixed * weights.view({x.size(0), num_adapters, rank})).flatten(1);
  }
  y.add_(hidden.matmul(adapters.layout.lora_b).to(y.scalar_type()));
}

}  // namespace

void add_routed_lora(Ops& column) {
  column.pack_adapters = pack_adapters;
  column.add_routed = add_routed;
}

}  // namespace quiver::backend::cuda
