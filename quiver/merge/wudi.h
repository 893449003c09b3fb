// WUDI: the update that disturbs each adapter least, in the directions that the adapter reads.
#pragma once

#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

struct WudiOptions {
  bool divide_by_count = false;  ///< the minimiser over the number of adapters, as mttl divides what it stops at; see wudi
};

/// WUDI-merging (Cheng et al. 2025): per projection the tau of least norm that minimises
///
///   L(tau) = sum_i |(tau - tau_i) tau_i^T|_F^2 / |tau_i|_F^2,   tau_i = delta_w_i
///
/// Adapters whose update is 0 are left out. The original and mttl take a few hundred steps of Adam from
/// the sum of the tau_i; L is quadratic, so the minimum is found outright. Rows of tau outside the span of the A_i do not enter L
/// and gradient descent from the sum, which lies in the span, never leaves it; there, with A_i^T = Q R_i for an orthonormal Q of that
/// span and tau = T Q^T, L is the least-squares problem
///
///   L = sum_i |(T - T_i) M_i^T|_F^2,   T_i = scaling_i B_i R_i^T,   M_i^T M_i = T_i^T T_i / |tau_i|_F^2
///   T* = [T_1 M_1^T, ..., T_n M_n^T] [M_1; ...; M_n]^(+T)  =  sum_i scaling_i B_i X_i
///
/// solved by a pseudo-inverse in float64 (singular values below 1e-10 of the largest count as 0). So lora_b = [scaling_i B_i],
/// lora_a = [X_i Q^T], rank sum_i r_i, scaling 1, as mean_of_products, and delta_w is never formed. Ranks and scalings may
/// differ. One adapter, or the same one several times, gives that adapter's update; adapters that read orthogonal inputs give their
/// sum. mttl's division by n suits a tau that Adam has hardly moved from the sum, not the minimum, so it is an option.
/// Throws as mean_of_products.
adapters::LoraAdapter wudi(std::span<const adapters::LoraAdapter> adapters, const WudiOptions& options = {});

}  // namespace quiver::merge
