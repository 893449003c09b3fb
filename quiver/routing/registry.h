// Routers by name.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/routing/arrow.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// What the routers of the registry are made from; each reads the part it needs.
struct RouterOptions {
  ArrowOptions arrow;              ///< "arrow"
  std::int64_t fixed_adapter = 0;  ///< "fixed"
};

/// "arrow", "uniform", "fixed".
std::vector<std::string> router_names();

/// The router `name` for the adapters whose prototypes at one projection are `prototypes` [N,
/// d_in]. Throws kUsage for a name that is not in router_names(), else as the router's constructor.
RouterPtr make_router(std::string_view name, const torch::Tensor& prototypes, const RouterOptions& options);

}  // namespace quiver::routing
