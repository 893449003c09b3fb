// The mixtures of factors that PEFT's add_weighted_adapter makes, with PEFT's results.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/merge/dare.h"

namespace quiver::merge {

/// PEFT's combination_type. Its "cat" is weighted_products, its "svd" compressed_products.
enum class PeftCombination { kLinear, kTies, kDareLinear, kDareTies, kMagnitudePrune };
/// How a sign is elected: by the sum of the entries, or by their number.
enum class MajoritySign { kTotal, kFrequency };

struct PeftMergeOptions {
  PeftCombination combination = PeftCombination::kLinear;
  double density = 0.2;                               ///< the share of entries kept; in (0, 1], and not used by kLinear
  MajoritySign majority_sign = MajoritySign::kTotal;  ///< of kTies and kDareTies
  std::uint64_t seed = 0;                             ///< of the draws of kDareLinear and kDareTies, as in DareOptions
};

/// Each factor on its own: with t_i the factor A_i (then B_i) and c_i = sqrt(|w_i scaling_i|), for A with the sign of w_i scaling_i,
///
///   kLinear          t* = sum_i c_i t_i
///   kMagnitudePrune  t* = sum_i c_i p(t_i),   p: the floor(density * entries) largest entries of this tensor, the rest 0
///   kDareLinear      t* = sum_i c_i d(t_i),   d: kept with probability density, over the density
///   kTies, kDareTies t* = the mean of the c_i p(t_i), or c_i d(t_i), whose sign is elected; the sign of sum_i p(t_i), or of the sum
///                    of their signs, and + where that is 0
///
/// and scaling 1. The update is sum_ij c_i c_j B_i A_j: unlike the mean of the factors it does not shrink as 1/n when w_i = 1/n, and like
/// it mixes across adapters. One adapter is only multiplied by its weight, whatever the combination. Of equal magnitudes the
/// first in row-major order is kept (PEFT leaves it open). Sums in float64. Scalings may differ, ranks may not.
/// Throws as weighted_products, kMismatch for unequal ranks, and kUsage unless the density is in (0, 1].
adapters::LoraAdapter peft_merge(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                 const PeftMergeOptions& options = {});
/// The same with given masks, one set for each adapter, in place of drawn ones. Throws kMismatch unless they fit.
adapters::LoraAdapter peft_merge(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                 const PeftMergeOptions& options, std::span<const AdapterMasks> masks);

}  // namespace quiver::merge
