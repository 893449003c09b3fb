// A library of LoRAs with a router, on one linear map.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/nn/linear.h"
#include "quiver/routing/routed_lora_kernel.h"
#include "quiver/routing/router.h"
#include "quiver/routing/stacked_adapters.h"

namespace quiver::routing {

/// What the weights of a token's adapters mix. Both cost the same.
enum class Combine {
  kParams,   ///< the factors, as the paper does: s (sum_i w_i B_i)(sum_i w_i A_i) x
  kOutputs,  ///< the updates, as PEFT does: sum_i w_i s_i B_i A_i x
};

/// y_t = below(x_t) + the update of the adapters that the router chose for token t, mixed as `combine` says. On the CPU only the chosen
/// adapters are computed. For inference alone: the update has no backward pass.
///
/// The update is summed in float32 (float64 for float64 x) and added to the output of the map below in x's dtype. On the CPU, x in float32
/// or bfloat16 takes the kernels of routed_lora_kernel.h. Other devices take stacked_update, which computes all adapters. float64 takes a
/// plain loop over adapters. Thread-safe if the router is.
class RoutedUpdate final : public nn::Update {
 public:
  /// pairs[i] is what adapter i of the router adds here. Throws kUsage without pairs; kMismatch if the pairs do not fit the map below or
  /// the router, or, for kParams, if they differ in rank or scaling.
  RoutedUpdate(const nn::Linear& below, std::vector<adapters::LoraPair> pairs, RouterPtr router, Combine combine);

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord& record) const override;

 private:
  /// The update [T, d_out] by plain tensor operations, on any device.
  torch::Tensor plain_update(const torch::Tensor& x, const RoutingDecision& decision) const;

  std::vector<adapters::LoraPair> pairs_;
  RouterPtr router_;
  Combine combine_;
  PackedAdapters packed_;    ///< for a base on the CPU
  StackedAdapters stacked_;  ///< for one elsewhere
};

}  // namespace quiver::routing
