// A library of LoRAs with a router, on one linear map.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/backend/routed_lora.h"
#include "quiver/nn/linear.h"
#include "quiver/routing/observer.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

using backend::Combine;

/// y_t = below(x_t) + the update of the adapters that the router chose for token t, mixed as `combine` says. On the CPU only the chosen
/// adapters are computed. For inference alone: the update has no backward pass.
///
/// The update is summed in float32 (float64 for float64 x) and added to the output of the map below in x's dtype (backend::add_routed).
/// Thread-safe if the router is.
class RoutedUpdate final : public nn::Update, public nn::AdditiveUpdate {
 public:
  /// pairs[i] is what adapter i of the router adds here. Throws kUsage without pairs; kMismatch if the pairs do not fit the map below or
  /// the router, or, for kParams, if they differ in rank or scaling.
  RoutedUpdate(const nn::Linear& below, const std::vector<adapters::LoraPair>& pairs, RouterPtr router, Combine combine);
  /// From now on `observer`, which must outlive the update, sees the decisions of this map, which it knows as `path`.
  void observe(RouteObserver& observer, std::string path);

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;
  void add_to(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const nn::Rows& rows, const torch::Tensor& y) const override;

 private:
  RouterPtr router_;
  Combine combine_;
  backend::RoutedAdapters adapters_;
  RouteObserver* observer_ = nullptr;
  std::string path_;
};

}  // namespace quiver::routing
