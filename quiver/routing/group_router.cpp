#include "quiver/routing/group_router.h"

#include <torch/utils.h>

#include <cmath>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/routing/choice.h"

namespace quiver::routing {

GroupRouter::GroupRouter(std::shared_ptr<const GroupTable> weights, std::int64_t top_k) : weights_(std::move(weights)), top_k_(top_k) {
  check_choice(top_k, 1, num_adapters());
}

RoutingDecision GroupRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  const auto distinct = distinct_groups(groups, x.size(0));
  const auto top = top_scores(table_rows(*weights_, distinct.groups), top_k_);  // of each group once
  const auto of_token = distinct.of_token.to(x.device());
  return {top.index.to(x.device()).index_select(0, of_token), top.scores.to(x.device()).index_select(0, of_token)};
}

FallbackRouter::FallbackRouter(RouterPtr inner, FallbackOptions options) : inner_(std::move(inner)), options_(options) {
  if (!(options_.strength >= 0) || (options_.by == Fallback::kConstant && options_.strength > 1)) {
    fail(ErrorKind::kUsage, "the strength of a fallback is {}: expected 0 or more, and at most 1 for a constant share", options_.strength);
  }
}

RoutingDecision FallbackRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  const auto [index, weight] = inner_->route(x, groups);  // [T, k] each
  torch::Tensor share;                                    // [T, 1]
  switch (options_.by) {
    case Fallback::kConstant: share = torch::full({x.size(0), 1}, options_.strength, weight.options()); break;
    case Fallback::kEntropy: {
      const auto most = std::log(static_cast<double>(std::max<std::int64_t>(weight.size(1), 2)));
      const auto entropy = -torch::xlogy(weight, weight).sum(1, /*keepdim=*/true);
      share = (entropy / most).clamp(0, 1).pow(options_.strength);
      break;
    }
    case Fallback::kMargin: {
      const auto sorted = std::get<0>(weight.sort(1, /*descending=*/true));
      const auto second = weight.size(1) > 1 ? sorted.narrow(1, 1, 1) : torch::zeros_like(sorted.narrow(1, 0, 1));
      share = (1 - (sorted.narrow(1, 0, 1) - second)).clamp(0, 1).pow(options_.strength);
      break;
    }
  }
  const auto last = torch::full({x.size(0), 1}, inner_->num_adapters(), index.options());
  return {torch::cat({index, last}, 1), torch::cat({weight * (1 - share), share}, 1)};
}

ShareRouter::ShareRouter(RouterPtr inner, std::shared_ptr<const GroupTable> shares) : inner_(std::move(inner)), shares_(std::move(shares)) {
  if (shares_->width() != 1) fail(ErrorKind::kMismatch, "shares of width {}: expected one share a group", shares_->width());
}

RoutingDecision ShareRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  auto decision = inner_->route(x, groups);
  decision.weight = decision.weight * group_rows(*shares_, groups, x.size(0), decision.weight.device());
  return decision;
}

}  // namespace quiver::routing
