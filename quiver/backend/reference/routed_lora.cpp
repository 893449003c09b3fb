#include <torch/utils.h>

#include <algorithm>

#include "quiver/backend/reference/columns.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend::reference {
namespace {

/// The table's row of each token's group, [T, num_adapters], on `device`. Only the rows of groups that occur go there.
Tensor bias_rows(const ScoreAdjustment& adjustment, std::int64_t num_adapters, std::int64_t num_tokens, torch::Device device) {
  std::vector<std::int32_t> distinct(adjustment.groups.begin(), adjustment.groups.end());
  if (distinct.empty()) distinct = {0};
  std::ranges::sort(distinct);
  const auto repeated = std::ranges::unique(distinct);
  distinct.erase(repeated.begin(), repeated.end());
  auto rows = torch::empty({static_cast<std::int64_t>(distinct.size()), num_adapters}, torch::kFloat);
  auto to = tensor::mutable_trusted_data<float>(rows);
  for (const auto group : distinct) to = std::ranges::copy_n(adjustment.bias.begin() + group * num_adapters, num_adapters, to).out;
  auto of_token = torch::zeros({num_tokens}, torch::kLong);
  auto* numbers = tensor::mutable_trusted_data<std::int64_t>(of_token);
  for (const auto group : adjustment.groups) *numbers++ = std::ranges::lower_bound(distinct, group) - distinct.begin();
  return rows.to(device).index_select(0, of_token.to(device));
}

/// The tokens that chose an adapter [T_i], and its weight there [T_i, 1].
struct Users {
  Tensor rows, gate;
};

Users users_of(const Chosen& chosen, std::int64_t adapter) {
  const auto is_chosen = chosen.index == adapter;                   // [T, k]
  const auto rows = is_chosen.any(/*dim=*/1).nonzero().squeeze(1);  // [T_i]
  const auto gate = torch::where(is_chosen, chosen.weight, torch::zeros_like(chosen.weight)).sum(1);
  return {rows, gate.index_select(0, rows).unsqueeze(1)};
}

Tensor pack_prototypes(const Tensor&) { return {}; }
Tensor pack_vectors(const Tensor&) { return {}; }
RoutedLayout pack_adapters(std::span<const LoraFactors>, torch::Device) { return {}; }

Chosen route(const ScoreVectors& prototypes, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto device = x.device();
  auto scores = x.to(torch::kFloat).matmul(prototypes.rows.on(device).t()).abs();  // [T, N]
  if (adjustment.scale.defined()) scores = scores * adjustment.scale.on(device) + adjustment.shift.on(device);
  if (!adjustment.bias.empty()) scores = scores + bias_rows(adjustment, prototypes.num_adapters(), x.size(0), device);
  return choose_softmax(scores, top_k, temperature);
}

Tensor shrink_routed(const ScoreVectors& vectors, const Tensor& x, const Tensor& index) {
  const auto rows = vectors.rows.on(x.device());                             // [N, c, d_in]
  const auto products = x.to(torch::kFloat).matmul(rows.flatten(0, 1).t());  // [T, N c]
  const auto each = products.view({x.size(0), rows.size(0), rows.size(1)});
  return each.gather(1, index.unsqueeze(2).expand({-1, -1, rows.size(1)}));
}

void add_routed(const RoutedAdapters& adapters, const Tensor& x, const Chosen& chosen, Combine combine, Tensor y) {
  const auto dtype = tensor::compute_dtype(x.scalar_type());
  const auto tokens = x.to(dtype);
  const auto& factors = adapters.factors;
  const auto placed = [&](const Tensor& factor) { return factor.to(x.device(), dtype).t(); };
  auto update = torch::zeros(y.sizes(), tokens.options());
  Tensor mixed;  // u_t = sum_i w_ti A_i x_t, [T, r], where parameters are mixed
  if (combine == Combine::kParams) mixed = torch::zeros({x.size(0), factors.front().lora_a.size(0)}, tokens.options());

  std::vector<Users> users;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    users.push_back(users_of(chosen, static_cast<std::int64_t>(i)));
    const auto& [rows, gate] = users.back();
    if (rows.numel() == 0) continue;                                                     // most adapters are idle in a small batch
    const auto hidden = tokens.index_select(0, rows).matmul(placed(factors[i].lora_a));  // [T_i, r]
    if (combine == Combine::kParams) {
      mixed.index_add_(0, rows, gate.to(dtype) * hidden);
    } else {
      update.index_add_(0, rows, gate.to(dtype) * factors[i].scaling * hidden.matmul(placed(factors[i].lora_b)));
    }
  }
  for (std::size_t i = 0; combine == Combine::kParams && i < factors.size(); ++i) {
    const auto& [rows, gate] = users[i];
    if (rows.numel() == 0) continue;
    const auto part = mixed.index_select(0, rows).matmul(placed(factors[i].lora_b));  // [T_i, d_out]
    update.index_add_(0, rows, gate.to(dtype) * factors[i].scaling * part);
  }
  y.add_(update.to(y.scalar_type()));
}

}  // namespace

void add_routed_lora(Ops& column) {
  column.pack_prototypes = pack_prototypes;
  column.pack_vectors = pack_vectors;
  column.pack_adapters = pack_adapters;
  column.route = route;
  column.shrink_routed = shrink_routed;
  column.add_routed = add_routed;
}

}  // namespace quiver::backend::reference
