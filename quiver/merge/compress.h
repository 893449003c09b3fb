// A smaller rank for an update.
#pragma once

#include <cstdint>
#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

/// The best approximation of a pair's update by one of `rank` (Eckart and Young 1936): its first singular values,
///
///   scaling B A = Qb Rb Ra^T Qa^T,   scaling Rb Ra^T = U S V^T,   B* = Qb U_k S_k,   A* = V_k^T Qa^T
///
/// by QR of both factors and an SVD of the core [r, r], in float64, without forming delta_w. The rows of A* are orthonormal, their
/// largest entries positive; the scaling is 1. Exact where `rank` is that of the update. The rank of the result is at most d_in,
/// d_out and the pair's own. Throws kUsage if rank < 1 or a factor is not finite, kUnsupported for a DoRA.
adapters::LoraPair compressed(const adapters::LoraPair& pair, std::int64_t rank);
/// Every pair compressed; the name is kept. Errors as for a pair.
adapters::LoraAdapter compressed(const adapters::LoraAdapter& adapter, std::int64_t rank);

/// sum_i w_i delta_w_i compressed to `rank`; PEFT's "svd". Ranks and scalings may differ. Errors as weighted_products and compressed.
adapters::LoraAdapter compressed_products(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                          std::int64_t rank);

}  // namespace quiver::merge
