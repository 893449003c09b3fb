// Routed adapters on devices for which we have no kernel.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

#include "quiver/adapters/lora.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// All adapters of one projection as two matrices, their factors one below another: R is the sum of their ranks. Immutable.
struct StackedAdapters {
  torch::Tensor lora_a;      ///< [R, d_in] float32
  torch::Tensor scaled_b_t;  ///< [R, d_out] float32: the rows of s_i B_i^T
  torch::Tensor owner;       ///< [R] int64: the adapter that a row is of
  std::int64_t num_adapters = 0;
};
/// The pairs have equal d_in and d_out, and are on one device, which need not be this one.
StackedAdapters stack_adapters(std::span<const adapters::LoraPair> pairs, torch::Device device);

/// The update [T, d_out] float32 of x [T, d_in]: sum_i w_i s_i B_i A_i x, or s (sum_i w_i B_i)(sum_i w_i A_i) x if `mix_parameters`
/// (equal ranks). Two products over all adapters, in which those that a token did not choose weigh 0: work grows with R and not with k, but
/// a GPU does these two sooner than N pairs of small ones. x on the adapters' device, any floating dtype.
torch::Tensor stacked_update(const StackedAdapters& adapters, const torch::Tensor& x, const RoutingDecision& decision, bool mix_parameters);

}  // namespace quiver::routing
