// TIES: trim, elect signs, merge.
#pragma once

#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

struct TiesOptions {
  double density = 0.2;  ///< the share of an adapter's entries, the largest, that are kept; in (0, 1]
};

/// TIES-merging of the factors (Yadav et al. 2023, alg. 1, as mttl applies it to LoRAs): with theta_i all factors of adapter i as one
/// vector, over all paths,
///
///   trim    theta_i[j] := 0 where |theta_i[j]| < the (1 - density)-quantile of |theta_i|
///   elect   gamma[j] = sign(sum_i theta_i[j])
///   merge   theta*[j] = the mean of the theta_i[j] of sign gamma[j]
///
/// An entry equal to the threshold is kept, so density 1 keeps all, and one adapter is returned as it is. No lambda follows. As every
/// mixture of factors it is meaningful for adapters that started from one lora_a; knots merges updates. Sums in float64.
/// Throws as mean_of_factors, and kUsage unless the density is in (0, 1].
adapters::LoraAdapter ties(std::span<const adapters::LoraAdapter> adapters, const TiesOptions& options = {});

}  // namespace quiver::merge
