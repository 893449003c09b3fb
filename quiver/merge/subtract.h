// GenKnowSub: what adapters of general text have in common, taken out of an adapter.
#pragma once

#include <span>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

/// General knowledge subtraction on the factors, as PEFT's ArrowConfig(use_gks=True) and the paper's code do it,
///
///   A* = A - (1/g) sum_j A_j,   B* = B - (1/g) sum_j B_j      (Bagherifard et al. 2025; j over the g general adapters)
///
/// with the adapter's scaling, name and options. Cross terms (B A_j, B_j A) make it another thing than the difference of the updates:
/// see subtract_products. Sums in float64.
/// Throws kUsage for no general adapters, else as mean_of_factors over the adapter and them.
adapters::LoraAdapter subtract_factors(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> general);

/// The difference of the updates, exactly: delta_w* = delta_w - (1/g) sum_j delta_w_j, of rank r + sum_j r_j and scaling 1; compressed
/// makes it smaller. Ranks and scalings may differ. The name is the adapter's. Throws as subtract_factors, but as mean_of_products.
adapters::LoraAdapter subtract_products(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> general);

}  // namespace quiver::merge
