#include "quiver/nn/rows.h"

#include <torch/utils.h>

#include "quiver/tensor/raw_data.h"

namespace quiver::nn {

std::vector<std::int32_t> row_groups(const Rows& rows, std::int64_t num_rows) {
  if (rows.groups == nullptr) return {};
  if (!rows.index.defined()) return {rows.groups + rows.first_row, rows.groups + rows.first_row + num_rows};
  const auto index = rows.index.cpu();
  const auto* numbers = tensor::raw_data<std::int64_t>(index, "index of Rows", {num_rows});
  std::vector<std::int32_t> groups;
  for (std::int64_t i = 0; i < num_rows; ++i) groups.push_back(rows.groups[numbers[i]]);
  return groups;
}

torch::Tensor take_rows(const torch::Tensor& batch, const Rows& rows, std::int64_t num_rows) {
  if (!batch.defined()) return {};
  return rows.index.defined() ? batch.index_select(0, rows.index) : batch.narrow(0, rows.first_row, num_rows);
}

}  // namespace quiver::nn
