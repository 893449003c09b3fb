#include "quiver/routing/routed_linear.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

void check(const nn::Projection& base, const std::vector<adapters::LoraPair>& pairs, const Router& router, Combine combine) {
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

RoutedLinear::RoutedLinear(nn::ProjectionPtr base, std::vector<adapters::LoraPair> pairs, RouterPtr router, Combine combine)
    : base_(std::move(base)), pairs_(std::move(pairs)), router_(std::move(router)), combine_(combine) {
  check(*base_, pairs_, *router_, combine_);
  if (base_->device().is_cpu()) {
    packed_ = pack_adapters(pairs_);
  } else {
    stacked_ = stack_adapters(pairs_, base_->device());
  }
}

torch::Tensor RoutedLinear::forward(const torch::Tensor& x) const { return routed(x, {}); }

torch::Tensor RoutedLinear::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  const auto y = routed(x, nn::row_groups(record, x.size(0)));
  return onto.defined() ? onto + y : y;
}

torch::Tensor RoutedLinear::routed(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  if (x.dim() != 2 || x.size(1) != in_features()) {
    fail(ErrorKind::kMismatch, "a routed linear map [{}, {}] cannot take x {}: expected x [T, {}]", out_features(), in_features(),
         tensor::describe(x), in_features());
  }
  if (torch::GradMode::is_enabled() && x.requires_grad()) {
    fail(ErrorKind::kUnsupported, "routed adapters are for inference: no gradient flows through them (train adapters one by one)");
  }
  const torch::NoGradGuard no_grad;
  const auto decision = router_->route(x, groups);  // [T, k] each
  auto y = base_->forward(x).contiguous();          // [T, d_out]
  if (has_kernel(x) && y.scalar_type() == x.scalar_type()) {
    add_routed(packed_, x, decision, combine_ == Combine::kParams, y);
    return y;
  }
  if (!x.is_cpu() && x.scalar_type() != torch::kDouble) {
    return y + stacked_update(stacked_, x, decision, combine_ == Combine::kParams).to(y.scalar_type());
  }
  return y + plain_update(x, decision).to(y.scalar_type());
}

torch::Tensor RoutedLinear::plain_update(const torch::Tensor& x, const RoutingDecision& decision) const {
  const auto dtype = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto tokens = x.to(dtype);
  auto update = torch::zeros({x.size(0), out_features()}, tokens.options());
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

torch::Tensor RoutedLinear::backward(const torch::Tensor&) const {
  fail(ErrorKind::kUnsupported, "routed adapters are for inference: they have no backward pass (train adapters one by one)");
}

}  // namespace quiver::routing
