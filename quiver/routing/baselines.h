// Routers that do not look at the token.
#pragma once

#include <cstdint>

#include "quiver/routing/router.h"

namespace quiver::routing {

/// Every adapter with weight 1 / N. With parameter mixing this is the paper's mu, the average of
/// the factors.
class UniformRouter : public Router {
 public:
  /// Throws kUsage unless num_adapters >= 1.
  explicit UniformRouter(std::int64_t num_adapters);
  std::int64_t num_adapters() const override { return num_adapters_; }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  std::int64_t num_adapters_;
};

/// One adapter with weight 1: the oracle, where the task of the text is known.
class FixedRouter : public Router {
 public:
  /// Throws kUsage unless 0 <= adapter < num_adapters.
  FixedRouter(std::int64_t num_adapters, std::int64_t adapter);
  std::int64_t num_adapters() const override { return num_adapters_; }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  std::int64_t num_adapters_;
  std::int64_t adapter_;
};

}  // namespace quiver::routing
