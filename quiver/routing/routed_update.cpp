#include "quiver/routing/routed_update.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

void check(const nn::Linear& base, const std::vector<adapters::LoraPair>& pairs, const Router& router, Combine combine) {
  if (pairs.empty()) fail(ErrorKind::kUsage, "a routed linear map without adapters: give it at least one");
  if (router.num_adapters() != static_cast<std::int64_t>(pairs.size())) {
    fail(ErrorKind::kMismatch, "the router chooses among {} adapters and there are {}", router.num_adapters(), pairs.size());
  }
  const auto& first = pairs.front();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto& pair = pairs[i];
    if (pair.in_features() != base.in_features() || pair.out_features() != base.out_features()) {
      fail(ErrorKind::kMismatch, "adapter {} has lora_a {} and lora_b {}, which do not fit a base weight [{}, {}]", i,
           tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()), base.out_features(), base.in_features());
    }
    if (combine == Combine::kParams && (pair.rank() != first.rank() || pair.scaling() != first.scaling())) {
      fail(ErrorKind::kMismatch,
           "adapter 0 has rank {} and scaling {}, adapter {} rank {} and scaling {}: parameters can be mixed only among adapters of one "
           "rank and one scaling (mix their outputs instead)",
           first.rank(), first.scaling(), i, pair.rank(), pair.scaling());
    }
  }
}

/// The tokens that chose an adapter, and its weight there.
struct Chosen {
  torch::Tensor rows;  ///< [T_i]
  torch::Tensor gate;  ///< [T_i, 1]
};

Chosen chosen_by(const RoutingDecision& decision, std::int64_t adapter) {
  const auto is_chosen = decision.index == adapter;                 // [T, k]
  const auto rows = is_chosen.any(/*dim=*/1).nonzero().squeeze(1);  // [T_i]
  const auto gate = torch::where(is_chosen, decision.weight, torch::zeros_like(decision.weight)).sum(1);
  return {rows, gate.index_select(0, rows).unsqueeze(1)};
}

}  // namespace

RoutedUpdate::RoutedUpdate(const nn::Linear& below, std::vector<adapters::LoraPair> pairs, RouterPtr router, Combine combine)
    : pairs_(std::move(pairs)), router_(std::move(router)), combine_(combine) {
  check(below, pairs_, *router_, combine_);
  if (below.device().is_cpu()) {
    packed_ = pack_adapters(pairs_);
  } else {
    stacked_ = stack_adapters(pairs_, below.device());
  }
}

torch::Tensor RoutedUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                                    nn::UpdateRecord&) const {
  const auto decision = router_->route(x, nn::row_groups(rows, x.size(0)));  // [T, k] each
  auto y = below.forward(x, {}).contiguous();                                // [T, d_out]
  if (has_kernel(x)) {
    add_routed(packed_, x, decision, combine_ == Combine::kParams, y);
  } else if (!x.is_cpu() && x.scalar_type() != torch::kDouble) {
    y = y + stacked_update(stacked_, x, decision, combine_ == Combine::kParams).to(y.scalar_type());
  } else {
    y = y + plain_update(x, decision).to(y.scalar_type());
  }
  return onto.defined() ? onto + y : y;
}

torch::Tensor RoutedUpdate::plain_update(const torch::Tensor& x, const RoutingDecision& decision) const {
  const auto dtype = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto tokens = x.to(dtype);
  auto update = torch::zeros({x.size(0), pairs_.front().out_features()}, tokens.options());
  torch::Tensor mixed;  // u_t = sum_i w_ti A_i x_t, [T, r], where parameters are mixed
  if (combine_ == Combine::kParams) mixed = torch::zeros({x.size(0), pairs_.front().rank()}, tokens.options());

  std::vector<Chosen> chosen;
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    chosen.push_back(chosen_by(decision, static_cast<std::int64_t>(i)));
    const auto& [rows, gate] = chosen.back();
    if (rows.numel() == 0) continue;  // most adapters are idle in a small batch
    const auto hidden = tokens.index_select(0, rows).matmul(pairs_[i].lora_a().to(x.device(), dtype).t());  // [T_i, r]
    if (combine_ == Combine::kParams) {
      mixed.index_add_(0, rows, gate.to(dtype) * hidden);
    } else {
      update.index_add_(0, rows, gate.to(dtype) * pairs_[i].scaling() * hidden.matmul(pairs_[i].lora_b().to(x.device(), dtype).t()));
    }
  }
  if (combine_ == Combine::kOutputs) return update;
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    const auto& [rows, gate] = chosen[i];
    if (rows.numel() == 0) continue;
    const auto part = mixed.index_select(0, rows).matmul(pairs_[i].lora_b().to(x.device(), dtype).t());  // [T_i, d_out]
    update.index_add_(0, rows, gate.to(dtype) * pairs_[i].scaling() * part);
  }
  return update;
}

}  // namespace quiver::routing
