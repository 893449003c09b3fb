// The slow, obvious twin of RoutedUpdate.
#pragma once

#include <torch/types.h>

#include <span>

#include "quiver/adapters/lora.h"
#include "quiver/routing/routed_update.h"
#include "quiver/routing/router.h"

namespace quiver::testing {

/// y_t = W x_t + the update of all N adapters weighted as `decision` says (0 where an adapter was
/// not chosen), in float64, by the definitions: every delta_w formed in full for kOutputs, every
/// token's own A and B for kParams. x [T, d_in], weight [d_out, d_in] -> [T, d_out].
torch::Tensor dense_mixture(const torch::Tensor& weight, std::span<const adapters::LoraPair> pairs,
                            const routing::RoutingDecision& decision, const torch::Tensor& x, routing::Combine combine);

}  // namespace quiver::testing
