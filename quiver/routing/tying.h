// Projections that read one input and are routed as one.
#pragma once

#include <string>
#include <vector>

#include "quiver/routing/attach.h"

namespace quiver::routing {

/// What a tie's prototype is the first right singular vector of.
enum class TieBy {
  kConcat,  ///< [dW_q; dW_k; dW_v], the updates one above another: what a fused projection would have (the paper's Phi-2)
  kSum,     ///< dW_q + dW_k + dW_v; equal output widths only
};

/// Gives the tied projections of each block one prototype, so that they decide alike: their input is the same, so are their scores
/// (as in Ostapenko et al. 2024, where q, k and v of Phi-2 are one projection). `names` are last names ("q_proj"); those of the same block
/// ("layers.3.self_attn") are tied. `stored` has the prototypes of all adapters at every path, and keeps those of paths that are not named.
///
/// Throws kUsage for names that do not read one input (only q_proj, k_proj, v_proj do, and gate_proj, up_proj), or where a block has fewer
/// than two of them; kMismatch where updates of unequal widths are to be summed; and as right_singular.
PrototypeMap tie_prototypes(std::span<const adapters::LoraAdapter> adapters, PrototypeMap stored, const std::vector<std::string>& names,
                            TieBy by);

}  // namespace quiver::routing
