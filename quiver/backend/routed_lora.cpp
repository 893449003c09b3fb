#include "quiver/backend/routed_lora.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/backend/table.h"
#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

using tensor::describe;
using tensor::expect_layout;

ScoreVectors pack(const Tensor& vectors, ScoreLayout (*layout)(const Tensor&)) {
  const torch::NoGradGuard no_grad;
  const auto rows = vectors.detach().to(torch::kCPU, torch::kFloat).contiguous();
  return {tensor::Placed(rows), layout(rows)};
}

void expect_fit(bool fits, const Tensor& x, const Tensor& vectors) {
  if (!fits) fail(ErrorKind::kInternal, "x {} does not fit vectors {} of adapters", describe(x), describe(vectors));
}

void check_adjustment(const ScoreAdjustment& adjustment, std::int64_t num_adapters, const Tensor& x) {
  if (adjustment.scale.defined()) {
    expect_layout(adjustment.scale.on_cpu(), "scale of Arrow's kernel", torch::kCPU, torch::kFloat, {num_adapters});
    expect_layout(adjustment.shift.on_cpu(), "shift of Arrow's kernel", torch::kCPU, torch::kFloat, {num_adapters});
  }
  if (adjustment.bias.empty()) return;
  const auto size = static_cast<std::int64_t>(adjustment.bias.size()), num_groups = size / num_adapters;
  if (size % num_adapters != 0 || (!adjustment.groups.empty() && static_cast<std::int64_t>(adjustment.groups.size()) != x.size(0))) {
    fail(ErrorKind::kInternal, "a table of {} numbers and {} groups of rows for {} adapters and x {}", size, adjustment.groups.size(),
         num_adapters, describe(x));
  }
  for (const auto group : adjustment.groups) {
    if (group < 0 || group >= num_groups) fail(ErrorKind::kInternal, "group {} of {}", group, num_groups);
  }
}

}  // namespace

TopScores top_scores(const Tensor& scores, std::int64_t top_k) {
  // Sorting is stable where topk is not: equal scores keep the order of the adapters on every device.
  const auto [sorted, order] = scores.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  return {order.narrow(1, 0, top_k).contiguous(), sorted.narrow(1, 0, top_k).contiguous()};
}

Chosen choose_softmax(const Tensor& scores, std::int64_t top_k, double temperature) {
  const auto top = top_scores(scores, top_k);
  const auto largest = top.scores.narrow(1, 0, 1);
  return {top.index, ((top.scores - largest) / temperature).softmax(1)};  // shifted, so that an infinite temperature gives no NaN
}

ScoreVectors pack_prototypes(const Tensor& prototypes) { return pack(prototypes, ops(torch::kCPU, torch::kFloat).pack_prototypes); }

ScoreVectors pack_vectors(const Tensor& vectors) { return pack(vectors, ops(torch::kCPU, torch::kFloat).pack_vectors); }

Chosen route(const ScoreVectors& prototypes, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto& rows = prototypes.rows.on_cpu();
  expect_fit(rows.dim() == 2 && x.dim() == 2 && x.size(1) == rows.size(1), x, rows);
  check_adjustment(adjustment, prototypes.num_adapters(), x);
  return ops_of(x).route(prototypes, x.contiguous(), top_k, temperature, adjustment);
}

Chosen route_shortlisted(const Shortlist& by, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto &prototypes = by.prototypes.rows.on_cpu(), &rows = by.vectors.rows.on_cpu();
  expect_fit(prototypes.dim() == 2 && x.dim() == 2 && x.size(1) == prototypes.size(1), x, prototypes);
  expect_fit(rows.dim() == 3 && x.size(1) == rows.size(2) && rows.size(0) == prototypes.size(0), x, rows);
  check_adjustment(adjustment, by.prototypes.num_adapters(), x);
  return ops_of(x).route_shortlisted(by, x.contiguous(), top_k, temperature, adjustment);
}

Tensor shrink_routed(const ScoreVectors& vectors, const Tensor& x, const Tensor& index) {
  const auto& rows = vectors.rows.on_cpu();
  const auto chosen = index.contiguous();
  expect_fit(rows.dim() == 3 && x.dim() == 2 && x.size(1) == rows.size(2), x, rows);
  expect_layout(chosen, "index of routed LoRAs", x.device(), torch::kLong, {x.size(0), index.size(1)});
  return ops_of(x).shrink_routed(vectors, x.contiguous(), chosen);
}

RoutedAdapters pack_adapters(std::vector<LoraFactors> factors, torch::Device device) {
  const torch::NoGradGuard no_grad;
  RoutedAdapters adapters{.d_in = factors.front().lora_a.size(1), .d_out = factors.front().lora_b.size(0)};
  for (auto& each : factors) each = {each.lora_a.detach(), each.lora_b.detach(), each.scaling};
  adapters.layout = ops(device, torch::kFloat).pack_adapters(factors, device);
  adapters.factors = std::move(factors);
  return adapters;
}

void add_routed(const RoutedAdapters& adapters, const Tensor& x, const Chosen& chosen, Combine combine, const Tensor& y) {
  const auto index = chosen.index.contiguous(), weight = chosen.weight.contiguous();
  const auto count = x.size(0);
  if (x.dim() != 2 || x.size(1) != adapters.d_in || index.dim() != 2 || index.size(0) != count || weight.sizes() != index.sizes() ||
      y.dim() != 2 || y.size(0) != count || y.size(1) != adapters.d_out || !y.is_contiguous() || y.scalar_type() != x.scalar_type()) {
    fail(ErrorKind::kInternal, "routed LoRA: x {}, y {}, index {} and weight {} do not fit together", describe(x), describe(y),
         describe(index), describe(weight));
  }
  expect_layout(index, "index of routed LoRAs", x.device(), torch::kLong, index.sizes());
  expect_layout(weight, "weight of routed LoRAs", x.device(), torch::kFloat, index.sizes());
  expect_layout(y, "y of routed LoRAs", x.device(), x.scalar_type(), y.sizes());
  ops_of(x).add_routed(adapters, x.contiguous(), {index, weight}, combine, y);
}

}  // namespace quiver::backend
