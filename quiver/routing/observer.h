// Seeing what routers choose, row by row, while a model computes.
#pragma once

#include <string>

#include "quiver/nn/rows.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// Is told of every decision of the routed linear maps that it is attached to. Several threads call it at once, for different rows.
class RouteObserver {
 public:
  virtual ~RouteObserver() = default;
  /// `decision` [T, k] of the rows at the linear map `path`.
  virtual void see(const std::string& path, const nn::Rows& rows, const RoutingDecision& decision) = 0;
};

}  // namespace quiver::routing
