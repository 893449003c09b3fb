// A linear map with a library of LoRAs and a router on top.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/backend/routed_lora.h"
#include "quiver/nn/projection.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

using backend::Combine;

/// y_t = W x_t + the update of the adapters that the router chose for token t, mixed as `combine`
/// says. On the CPU only the chosen adapters are computed. For inference alone: there is no backward pass.
///
/// The update is summed in float32 (float64 for float64 x) and added to the base output in x's dtype (backend::add_routed).
/// Thread-safe if the router is.
class RoutedLinear : public nn::Projection {
 public:
  /// pairs[i] is what adapter i of the router adds here. base->forward must return a tensor of its
  /// own. Throws kUsage without pairs; kMismatch if the pairs do not fit the base or the router,
  /// or, for kParams, if they differ in rank or scaling.
  RoutedLinear(nn::ProjectionPtr base, const std::vector<adapters::LoraPair>& pairs, RouterPtr router, Combine combine);

  /// x [T, d_in] -> [T, d_out]. Throws kUnsupported if x needs a gradient.
  torch::Tensor forward(const torch::Tensor& x) const override;
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const override;
  /// Throws kUnsupported.
  torch::Tensor backward(const torch::Tensor& dy) const override;
  std::int64_t in_features() const override { return base_->in_features(); }
  std::int64_t out_features() const override { return base_->out_features(); }
  torch::Tensor base_weight() const override { return base_->base_weight(); }
  torch::Device device() const override { return base_->device(); }

 private:
  torch::Tensor routed(const torch::Tensor& x, std::span<const std::int32_t> groups) const;

  nn::ProjectionPtr base_;
  RouterPtr router_;
  Combine combine_;
  backend::RoutedAdapters adapters_;
};

}  // namespace quiver::routing
