// Routing a whole library: from adapters to the linear maps of a model.
#pragma once

#include <torch/types.h>

#include <map>
#include <span>
#include <string>

#include "quiver/adapters/lora.h"
#include "quiver/nn/linear.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/observer.h"
#include "quiver/routing/recorder.h"
#include "quiver/routing/routed_update.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// Arrow prototypes by projection path: row i of [N, d_in] is that of adapters[i]. Named tensors,
/// so that a library can store them.
using PrototypeMap = std::map<std::string, torch::Tensor>;

/// The prototypes of one adapter, path -> [d_in]. Adding an adapter to a library needs only these.
PrototypeMap adapter_prototypes(const adapters::LoraAdapter& adapter);

/// The prototypes of all adapters, path -> [N, d_in] float32 on the CPU.
/// Throws kUsage without adapters, kMismatch unless all adapt the same paths with the same d_in
/// (naming one that does not).
PrototypeMap prototypes(std::span<const adapters::LoraAdapter> adapters);

/// Puts a RoutedUpdate on each linear map that the adapters adapt, whose router is
/// `routers.at(path)`; where `recorder`, which must outlive the linear maps, is given, what routers
/// choose is counted there; where `observer` is given, which must outlive them, too, it sees each decision. Routers are checked as
/// CheckedRouter does. `linears` changes only if nothing throws. Throws kUsage without adapters; kMismatch unless all adapt the same paths,
/// the model has these, shapes fit and, for kParams, ranks and scalings agree at each path; kNotFound if a path has no router.
void attach_routers(nn::LinearMap& linears, std::span<const adapters::LoraAdapter> adapters,
                    const std::map<std::string, RouterPtr>& routers, Combine combine, RoutingRecorder* recorder = nullptr,
                    RouteObserver* observer = nullptr);

/// attach_routers with an ArrowRouter at each path, from `stored` prototypes or, without these,
/// from prototypes(adapters). Throws also kNotFound or kMismatch if stored prototypes miss a path
/// or have another shape than [N, d_in], kMismatch for one that is not finite, and kUsage for bad options.
void attach_routed(nn::LinearMap& linears, std::span<const adapters::LoraAdapter> adapters, const ArrowOptions& options, Combine combine,
                   RoutingRecorder* recorder = nullptr, const PrototypeMap* stored = nullptr);

}  // namespace quiver::routing
