// The fast path of routing on the CPU: adapters laid out for it, and the calls that hand tensors to
// the kernels.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

#include "quiver/adapters/lora.h"
#include "quiver/routing/group_table.h"
#include "quiver/routing/router.h"

namespace quiver::routing {

/// True if x is on the CPU and float32 or bfloat16: what the kernels take.
bool has_kernel(const torch::Tensor& x);

/// Arrow prototypes [N, d_in], sixteen adapters side by side. Immutable.
struct PackedPrototypes {
  torch::Tensor panels;  ///< [ceil(N / 16), d_in, 16] float32
  std::int64_t num_adapters = 0;
};
PackedPrototypes pack_prototypes(const torch::Tensor& prototypes);

/// What is done to the scores before the largest are chosen: score_n scale_n + shift_n + bias_gn, g the token's group.
struct ScoreAdjustment {
  torch::Tensor scale, shift;            ///< [N] float32; undefined: 1 and 0
  const GroupTable* bias = nullptr;      ///< by group and adapter
  std::span<const std::int32_t> groups;  ///< [T]; empty: all of group 0
};
/// ArrowRouter::route of x [T, d_in], has_kernel(x). A token's decision depends on that token and its group
/// alone, bit for bit.
RoutingDecision route_packed(const PackedPrototypes& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
                             const ScoreAdjustment& adjustment = {});

/// All adapters of one projection; lower ranks are padded with zeros to the highest. Immutable.
struct PackedAdapters {
  torch::Tensor lora_a;  ///< [N, r, d_in padded to 16] float32
  /// [ceil(d_out / 64), N, r, 64] float32: B transposed, 64 columns of y at a time.
  torch::Tensor lora_b;
  torch::Tensor scaling;  ///< [N] float32
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
};
/// The pairs have equal d_in and d_out.
PackedAdapters pack_adapters(std::span<const adapters::LoraPair> pairs);

/// A_n x_t of the adapters n that `index` [T, k] names for each token, [T, k, r] float32. has_kernel(x). Only these are computed.
torch::Tensor shrink_routed(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index);

/// y [T, d_out] += the routed updates of x [T, d_in]: sum_j w_j s_j B_j A_j x, or s (sum_j w_j
/// B_j)(sum_j w_j A_j) x if `mix_parameters`. Only the chosen adapters are read. has_kernel(x); y
/// is contiguous, of x's dtype. A token's update depends on that token alone, bit for bit. Throws
/// kInternal for a decision that does not fit.
void add_routed(const PackedAdapters& adapters, const torch::Tensor& x, const RoutingDecision& decision, bool mix_parameters,
                const torch::Tensor& y);

}  // namespace quiver::routing
