// LoRAs of some rows of a linear map, one LoRA of the rows of several, and LoRAs that change nothing.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "quiver/adapters/lora.h"

namespace quiver::adapters {

/// The LoRA of some rows of its map: (A, B[rows]) with the same scaling, and the magnitudes or biases of these rows. Exact. `rows` [R]
/// int64.
LoraPair of_rows(const LoraPair& pair, const torch::Tensor& rows);

/// The rows that a map has within a larger one, and its LoRA if it has one.
struct StackedPart {
  std::optional<LoraPair> pair;
  torch::Tensor rows;  ///< [d_out] int64
};
/// The LoRAs of parts of a map with `num_rows` rows as one LoRA, whose rank is the sum of theirs and whose scaling is 1:
///
///   A' = [A_1; A_2; ...],   B' = 0 but for B'[rows_i, columns of A_i] = s_i B_i
///
/// Throws kUnsupported for DoRAs unless every part is one, kUsage if no part has a LoRA.
LoraPair stacked(const std::vector<StackedPart>& parts, std::int64_t num_rows);

/// Gives every adapter a LoRA at each path that one of them adapts: where it has none, one with A = 0 and B = 0, of the shapes, rank,
/// scaling and dtype of the first adapter that has one. So adapters of unlike targets can be mixed, routed and clustered: what an adapter
/// does not adapt it does not change.
void complete(std::vector<LoraAdapter>& adapters);

}  // namespace quiver::adapters
