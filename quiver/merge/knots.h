// KnOTS: merging in a basis that the adapters share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

/// How the parts of the adapters in the shared basis become one.
enum class KnotsMerge { kTies, kDare, kMean };

struct KnotsOptions {
  KnotsMerge merge = KnotsMerge::kTies;
  std::optional<double> density;  ///< of kTies (default 0.2) and kDare (0.5); in (0, 1]
  std::uint64_t seed = 0;         ///< of kDare's draws, which depend on it, the adapter's name and the path alone
};

/// KnOTS (Stoica et al. 2025): per projection, with K the rank of the adapters' updates side by side,
///
///   [delta_w_1, ..., delta_w_n] = U S [V_1; ...; V_n]^T,   P_i = S V_i^T [K, d_in]
///   delta_w* = U P*,   P* = kTies: as ties, the entries of adapter i being those of its P_i at all projections
///                           kDare: the mean of the P_i after dropping and rescaling
///                           kMean: their mean, so delta_w* is mean_of_products
///
/// All adapters' updates lie in the span of U, so entries of different adapters speak of the same directions, which those of their
/// factors do not. It depends on the updates alone: ranks and scalings may differ, and another basis of the factors changes nothing.
/// Signs of U are fixed by its largest entries. Singular values below 1e-10 of the largest count as 0.
///
/// By QR of [B_1, ..., B_n] and of every A_i^T, and an SVD of the core [K, sum_i r_i], in float64; delta_w is never formed, and
/// memory is that of one adapter's P at a time. The result has lora_b = U, lora_a = P*, rank K <= sum_i r_i and scaling 1.
/// Throws as mean_of_products, and kUsage unless the density is in (0, 1].
adapters::LoraAdapter knots(std::span<const adapters::LoraAdapter> adapters, const KnotsOptions& options = {});

}  // namespace quiver::merge
