// The narrow interface of routing: which adapters serve a token, and how much of each.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

namespace quiver::routing {

/// For each token the k adapters that serve it and their weights.
struct RoutingDecision {
  torch::Tensor index;   ///< [T, k] int64, in [0, num_adapters), no adapter twice in a row
  torch::Tensor weight;  ///< [T, k] float32
};

/// Chooses adapters per token. A cache, a recorder or a cross-check of routers is a Router that
/// wraps one. Thread-safe: route is const and may be called from several threads.
class Router {
 public:
  virtual ~Router() = default;
  /// x [T, d_in], T >= 0, any floating dtype; the decision lives on x's device.
  virtual RoutingDecision route(const torch::Tensor& x) const = 0;
  virtual std::int64_t num_adapters() const = 0;
};

using RouterPtr = std::shared_ptr<const Router>;

}  // namespace quiver::routing
