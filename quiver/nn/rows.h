// Which rows of a batch a call computes.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace quiver::nn {

/// T rows of a batch: [first_row, first_row + T), or the rows `index`.
struct Rows {
  std::int64_t first_row = 0;
  torch::Tensor index;                   ///< [T] int64; undefined: consecutive rows
  const std::int32_t* groups = nullptr;  ///< adapter assignment of every row of the batch (forest::Sequence::group); null: all 0
};

/// The groups of T rows, in order; empty if all are of group 0.
std::vector<std::int32_t> row_groups(const Rows& rows, std::int64_t num_rows);

/// The rows of a tensor of the whole batch; an undefined tensor stays undefined.
torch::Tensor take_rows(const torch::Tensor& batch, const Rows& rows, std::int64_t num_rows);

}  // namespace quiver::nn
