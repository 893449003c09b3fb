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

/// The maps of a block that read the same rows, by their names in it ("self_attn.q_proj"), set by set.
using InputSets = std::vector<std::vector<std::string>>;

/// Gives the tied projections of each block one prototype, so that they decide alike: their input is the same, so are their scores
/// (as in Ostapenko et al. 2024, where q, k and v of Phi-2 are one projection). `names` are last names ("q_proj") or tails; those of the
/// same block are tied. `inputs` are the names of a block's maps ("self_attn.q_proj") that read the same rows, set by set. `stored` has the
/// prototypes of all adapters at every path, and keeps those of paths that are not named.
///
/// Throws kUsage for names that do not read one input, or where a block has fewer than two of them; kMismatch where updates of unequal
/// widths are to be summed; and as right_singular.
PrototypeMap tie_prototypes(std::span<const adapters::LoraAdapter> adapters, PrototypeMap stored, const InputSets& inputs,
                            const std::vector<std::string>& names, TieBy by);

}  // namespace quiver::routing
