// From scores to decisions: what routers by score share.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "quiver/routing/arrow.h"
#include "quiver/routing/group_table.h"
#include "quiver/routing/router.h"
#include "quiver/tensor/placed.h"

namespace quiver::routing {

/// Throws kUsage unless 1 <= top_k <= num_adapters and temperature > 0.
void check_choice(std::int64_t top_k, double temperature, std::int64_t num_adapters);
/// Throws kMismatch unless the table, where there is one, has a column for each adapter.
void check_bias(const GroupTable* bias, std::int64_t num_adapters);
/// {scale, shift} with z = score * scale + shift = (score - mean) / deviation, [num_adapters] float32; both undefined without a
/// calibration. Throws kMismatch unless mean and deviation are [num_adapters], kUsage unless they are finite and deviation > 0.
std::pair<tensor::Placed, tensor::Placed> affine_of(const Calibration& calibration, std::int64_t num_adapters);
/// The groups that occur, in order, each once, and which of these each token's is.
struct DistinctGroups {
  std::vector<std::int32_t> groups;
  torch::Tensor of_token;  ///< [T] int64, on the CPU
};
/// `groups` is empty if all tokens are of group 0.
DistinctGroups distinct_groups(std::span<const std::int32_t> groups, std::int64_t num_tokens);
/// The table's rows of some groups, [G, width] float32, on the CPU.
torch::Tensor table_rows(const GroupTable& table, std::span<const std::int32_t> groups);
/// The table's row of each token's group, [T, width] float32.
torch::Tensor group_rows(const GroupTable& table, std::span<const std::int32_t> groups, std::int64_t num_tokens, torch::Device device);

using backend::choose_softmax;
using backend::top_scores;

}  // namespace quiver::routing
