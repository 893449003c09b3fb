// The narrow interface of routing: which adapters serve a token, and how much of each.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <span>

#include "quiver/backend/routed_lora.h"

namespace quiver::routing {

/// For each token the k adapters that serve it, none twice, and their weights.
using RoutingDecision = backend::Chosen;

/// Chooses adapters per token. A cache, a recorder or a cross-check of routers is a Router that
/// wraps one. Thread-safe: route is const and may be called from several threads.
class Router {
 public:
  virtual ~Router() = default;
  /// x [T, d_in], T >= 0, any floating dtype; the decision lives on x's device. `groups`: what each row is part of
  /// (forest::Sequence::group), for routers that decide by it; empty if all rows are of group 0.
  RoutingDecision route(const torch::Tensor& x, std::span<const std::int32_t> groups = {}) const { return decide(x, groups); }
  virtual std::int64_t num_adapters() const = 0;

 protected:
  virtual RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const = 0;
};

using RouterPtr = std::shared_ptr<const Router>;

}  // namespace quiver::routing
