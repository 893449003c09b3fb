// DARE: drop entries at random, rescale what is left.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

struct DareOptions {
  double density = 0.5;    ///< the probability that an entry is kept; in (0, 1]. Yu et al.'s drop rate is 1 - density
  std::uint64_t seed = 0;  ///< of the draws: an adapter's depend on the seed, its name and the path alone
};

/// Which entries of two factors are kept: 1 or 0, of the factors' shapes, float64.
struct FactorMasks {
  torch::Tensor a;  ///< [r, d_in]
  torch::Tensor b;  ///< [d_out, r]
};
/// By path, those of one adapter.
using AdapterMasks = std::map<std::string, FactorMasks>;

/// The masks of an adapter, from the streams "dare/<adapter>/<path>/lora_a" and ".../lora_b". Throws kUsage as dare does.
AdapterMasks dare_masks(const adapters::LoraAdapter& adapter, const DareOptions& options);
/// Drop and rescale (Yu et al. 2024): every factor times its mask, over the density. Both factors are drawn on their own,
/// so the expected update is the adapter's. Throws kMismatch unless there are masks that fit every pair.
adapters::LoraAdapter drop_and_rescale(const adapters::LoraAdapter& adapter, const AdapterMasks& masks, double density);

/// The mean of the factors after drop_and_rescale. Density 1 is mean_of_factors.
/// Throws as mean_of_factors, and kUsage unless the density is in (0, 1].
adapters::LoraAdapter dare(std::span<const adapters::LoraAdapter> adapters, const DareOptions& options = {});
/// TIES with dropping in place of trimming: the disjoint mean of the factors after drop_and_rescale. Throws as dare.
adapters::LoraAdapter dare_ties(std::span<const adapters::LoraAdapter> adapters, const DareOptions& options = {});

}  // namespace quiver::merge
