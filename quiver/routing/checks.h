// Checks of adapters and of routers that know names and paths.
#pragma once

#include <torch/types.h>

#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// Throws unless the adapters can be routed together: kUsage for no adapters and for values that are not finite, kUnsupported for a DoRA,
/// kMismatch, naming two adapters and the path, unless all adapt the same projections with the same numbers of features.
void check_alike(std::span<const adapters::LoraAdapter> adapters);

std::vector<std::string> names_of(std::span<const adapters::LoraAdapter> adapters);

/// `vectors` [N, ...], what adapters are routed by at `path`. Throws kMismatch, naming the adapter, for one that is not finite.
torch::Tensor finite_vectors(const torch::Tensor& vectors, const std::string& path, std::span<const std::string> adapters);

/// Routes as `router` does at `path`. Throws kMismatch, naming the path and the adapter, for weights that are not finite although the
/// input is. An input that is not finite passes: the logits of that pass are not finite either, and model::check_finite names the prompt.
/// Weights on another device than the CPU are not examined, since that would wait for the device.
class CheckedRouter : public Router {
 public:
  /// `adapters` are the names of the adapters that the router chooses from.
  CheckedRouter(RouterPtr router, std::string path, std::vector<std::string> adapters);
  std::int64_t num_adapters() const override { return router_->num_adapters(); }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  RouterPtr router_;
  std::string path_;
  std::vector<std::string> adapters_;
};

}  // namespace quiver::routing
