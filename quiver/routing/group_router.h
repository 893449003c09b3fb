// Routers that decide once per group of rows, a prompt as a rule, and routers that step back where others are undecided.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

#include "quiver/routing/group_table.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// The adapters with the largest weights in the row of the token's group, with these weights as they are: every token of a
/// prompt is served alike, at any projection. What the weights are, whoever filled the table decided.
class GroupRouter : public Router {
 public:
  /// `weights` has a column per adapter. Throws kUsage unless 1 <= top_k <= its width.
  GroupRouter(std::shared_ptr<const GroupTable> weights, std::int64_t top_k);
  std::int64_t num_adapters() const override { return weights_->width(); }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  std::shared_ptr<const GroupTable> weights_;
  std::int64_t top_k_;
};

/// When a router's decision gives way to the last adapter of the bank, a merge of all others.
enum class Fallback {
  kConstant,  ///< always, by the share `strength`
  kEntropy,   ///< by (H / ln k)^strength, H the entropy of the token's weights: all where they are equal
  kMargin,    ///< by (1 - (w_1 - w_2))^strength, the two largest weights
};

struct FallbackOptions {
  Fallback by = Fallback::kEntropy;
  double strength = 1;
};

/// Over N + 1 adapters, of which the last is a merge: the inner router's weights times (1 - g), and g for the last. "Arrow with a mean
/// fallback" is this over Arrow, its last adapter the mean (mix outputs: factors of a mean do not mix with those it was made of).
class FallbackRouter : public Router {
 public:
  /// `inner` routes over N adapters. Throws kUsage for a strength that is negative, or above 1 if constant.
  FallbackRouter(RouterPtr inner, FallbackOptions options);
  std::int64_t num_adapters() const override { return inner_->num_adapters() + 1; }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  RouterPtr inner_;
  FallbackOptions options_;
};

/// The inner router's decision, its weights times the share in the table's row of the token's group (width 1): what is missing to 1 is the
/// base's. Rows of group 0 are the base's alone.
class ShareRouter : public Router {
 public:
  /// Throws kMismatch for a table of another width.
  ShareRouter(RouterPtr inner, std::shared_ptr<const GroupTable> shares);
  std::int64_t num_adapters() const override { return inner_->num_adapters(); }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  RouterPtr inner_;
  std::shared_ptr<const GroupTable> shares_;
};

}  // namespace quiver::routing
