#include "quiver/routing/choice.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {

void check_choice(std::int64_t top_k, double temperature, std::int64_t num_adapters) {
  if (top_k < 1) fail(ErrorKind::kUsage, "top-k {} routes to no adapter: it must be at least 1", top_k);
  if (top_k > num_adapters) {
    fail(ErrorKind::kUsage, "top-k {} is larger than the library of {} adapters: choose a top-k of at most {}", top_k, num_adapters,
         num_adapters);
  }
  if (!(temperature > 0)) fail(ErrorKind::kUsage, "the temperature of the routing softmax is {}: it must be positive", temperature);
}

void check_bias(const GroupTable* bias, std::int64_t num_adapters) {
  if (bias != nullptr && bias->width() != num_adapters) {
    fail(ErrorKind::kMismatch, "a table of biases for {} adapters in a router over {}", bias->width(), num_adapters);
  }
}

std::pair<tensor::Placed, tensor::Placed> affine_of(const Calibration& calibration, std::int64_t num_adapters) {
  const auto& [mean, deviation] = calibration;
  if (!mean.defined() && !deviation.defined()) return {};
  if (!mean.defined() || !deviation.defined() || mean.dim() != 1 || mean.size(0) != num_adapters ||
      !deviation.sizes().equals(mean.sizes())) {
    fail(ErrorKind::kMismatch, "a calibration with mean {} and deviation {} for {} adapters; expected [{}] each", tensor::describe(mean),
         tensor::describe(deviation), num_adapters, num_adapters);
  }
  const auto wide = deviation.to(torch::kDouble);
  if (!tensor::all_finite(mean) || !tensor::all_finite(wide) || !(wide > 0).all().item<bool>()) {
    fail(ErrorKind::kUsage,
         "a calibration whose means are not finite or whose deviations are not positive: adapters that change nothing have no score to "
         "calibrate");
  }
  return {tensor::Placed(wide.reciprocal().to(torch::kFloat).contiguous()),
          tensor::Placed((-mean.to(torch::kDouble) / wide).to(torch::kFloat).contiguous())};
}

DistinctGroups distinct_groups(std::span<const std::int32_t> groups, std::int64_t num_tokens) {
  DistinctGroups distinct{{groups.begin(), groups.end()}, torch::zeros({num_tokens}, torch::kLong)};
  if (groups.empty()) {
    distinct.groups = {0};
    return distinct;
  }
  std::ranges::sort(distinct.groups);
  const auto repeated = std::ranges::unique(distinct.groups);
  distinct.groups.erase(repeated.begin(), repeated.end());
  const auto of_token = tensor::mutable_elements<std::int64_t>(distinct.of_token, "groups of tokens");
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    of_token[static_cast<std::size_t>(t)] =
        std::ranges::lower_bound(distinct.groups, groups[static_cast<std::size_t>(t)]) - distinct.groups.begin();
  }
  return distinct;
}

torch::Tensor table_rows(const GroupTable& table, std::span<const std::int32_t> groups) {
  auto rows = torch::empty({static_cast<std::int64_t>(groups.size()), table.width()}, torch::kFloat);
  const auto values = tensor::mutable_elements<float>(rows, "rows of a table");
  const auto known = table.rows();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::ranges::copy(known.at(groups[g]), values.begin() + static_cast<std::int64_t>(g) * table.width());
  }
  return rows;
}

torch::Tensor group_rows(const GroupTable& table, std::span<const std::int32_t> groups, std::int64_t num_tokens, torch::Device device) {
  const auto distinct = distinct_groups(groups, num_tokens);
  return table_rows(table, distinct.groups).to(device).index_select(0, distinct.of_token.to(device));
}

}  // namespace quiver::routing
