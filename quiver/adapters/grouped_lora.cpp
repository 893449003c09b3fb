#include "quiver/adapters/grouped_lora.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

/// Consecutive rows of one group.
struct Run {
  std::int64_t group = 0, begin = 0, size = 0;
};

std::vector<Run> runs_of(const nn::RowRecord& record, std::int64_t num_rows, std::int64_t num_groups) {
  const auto groups = nn::row_groups(record, num_rows);
  if (groups.empty()) return {{0, 0, num_rows}};
  std::vector<Run> runs;
  for (std::int64_t t = 0; t < num_rows; ++t) {
    const auto group = groups[static_cast<std::size_t>(t)];
    if (group < 0 || group >= num_groups) fail(ErrorKind::kInternal, "row of group {}, but there are LoRAs for {}", group, num_groups);
    if (runs.empty() || runs.back().group != group) runs.push_back({group, t, 0});
    ++runs.back().size;
  }
  return runs;
}

/// The part of the dropout mask for a record's rows; undefined without one.
torch::Tensor mask_of(const torch::Tensor& mask, const nn::RowRecord& record, std::int64_t num_rows) {
  if (!mask.defined()) return {};
  return record.rows.defined() ? mask.index_select(0, record.rows) : mask.narrow(0, record.first_row, num_rows);
}

torch::Tensor rows_of(const torch::Tensor& t, const Run& run) { return t.narrow(0, run.begin, run.size); }

/// How the rows of a batch belong to the groups. On the CPU by runs, each with products of its own. On a GPU, where many small products
/// take longer than a few large ones, all groups' factors one below another are one matrix, and `own` [T, G r] takes from its product what
/// is of a row's own group: 1 there, 0 elsewhere.
struct Membership {
  std::vector<Run> runs;
  torch::Tensor own;
};

Membership membership_of(const nn::RowRecord& record, const torch::Tensor& x, const torch::Tensor& factors) {
  Membership rows{runs_of(record, x.size(0), factors.size(0)), {}};
  if (x.is_cpu() || rows.runs.size() == 1) return rows;
  const auto groups = torch::tensor(nn::row_groups(record, x.size(0)), torch::kLong).to(x.device()).unsqueeze(1);  // [T, 1]
  const auto columns =
      torch::arange(factors.size(0), torch::TensorOptions(torch::kLong).device(x.device())).repeat_interleave(factors.size(1));
  rows.own = groups.eq(columns).to(factors.scalar_type());
  return rows;
}

/// z [T, r] with row t = x_t factors[g(t)]^T; or [T, G r], zero where it is of another group.
torch::Tensor shrink_runs(const torch::Tensor& x, const torch::Tensor& factors, const Membership& rows) {
  const auto& runs = rows.runs;
  if (rows.own.defined()) return backend::shrink(x, factors.flatten(0, 1)) * rows.own;
  if (runs.size() == 1) return backend::shrink(x, factors[runs.front().group]);
  auto z = torch::empty({x.size(0), factors.size(1)}, factors.options());
  for (const auto& run : runs) rows_of(z, run).copy_(backend::shrink(rows_of(x, run), factors[run.group]));
  return z;
}

/// onto + row t: z_t factors[g(t)], [T, d] in `dtype`.
torch::Tensor expand_runs(const torch::Tensor& z, const torch::Tensor& factors, const torch::Tensor& onto, torch::Dtype dtype,
                          const Membership& rows) {
  const auto& runs = rows.runs;
  if (rows.own.defined()) return backend::expand(z, factors.flatten(0, 1), onto, dtype);
  if (runs.size() == 1) return backend::expand(z, factors[runs.front().group], onto, dtype);
  auto y = torch::empty({z.size(0), factors.size(2)}, factors.options().dtype(dtype));
  for (const auto& run : runs) {
    rows_of(y, run).copy_(backend::expand(rows_of(z, run), factors[run.group], onto.defined() ? rows_of(onto, run) : onto, dtype));
  }
  return y;
}

/// Per group the sum over its rows of z_t x_t^T, [G, r, d].
torch::Tensor outer_runs(const torch::Tensor& z, const torch::Tensor& x, std::int64_t num_groups, const Membership& rows) {
  const auto& runs = rows.runs;
  if (rows.own.defined()) return backend::outer_product(z, x).view({num_groups, -1, x.size(1)});
  if (runs.size() == 1 && num_groups == 1) return backend::outer_product(z, x).unsqueeze(0);
  auto sums = torch::zeros({num_groups, z.size(1), x.size(1)}, z.options());
  for (const auto& run : runs) sums[run.group] += backend::outer_product(rows_of(z, run), rows_of(x, run));
  return sums;
}

}  // namespace

GroupedLora::GroupedLora(nn::ProjectionPtr base, double scaling, double dropout)
    : base_(std::move(base)), scaling_(scaling), dropout_(dropout) {}

void GroupedLora::set_factors(const torch::Tensor& lora_a, const torch::Tensor& lora_b) {
  if (lora_a.dim() != 3 || lora_b.dim() != 3 || lora_a.size(0) != lora_b.size(0) || lora_a.size(1) != lora_b.size(2) ||
      lora_a.size(2) != in_features() || lora_b.size(1) != out_features()) {
    fail(ErrorKind::kMismatch, "LoRAs with lora_a {} and lora_b {} do not fit a projection of {} to {} features", tensor::describe(lora_a),
         tensor::describe(lora_b), in_features(), out_features());
  }
  const torch::NoGradGuard no_grad;
  a_ = lora_a.detach().contiguous();
  scaled_b_t_ = (lora_b.detach() * scaling_).transpose(1, 2).contiguous();
  gradient_a_ = torch::zeros_like(a_);
  gradient_b_ = torch::zeros_like(lora_b, torch::MemoryFormat::Contiguous);
}

torch::Tensor GroupedLora::forward(const torch::Tensor&) const {
  fail(ErrorKind::kUnsupported, "LoRAs by group need to know the groups of the rows");
}

torch::Tensor GroupedLora::backward(const torch::Tensor&) const {
  fail(ErrorKind::kUnsupported, "LoRAs by group need to know the groups of the rows");
}

torch::Tensor GroupedLora::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  const auto rows = membership_of(record, x, a_);
  const auto mask = mask_of(dropout_mask_, record, x.size(0));
  record.hidden = shrink_runs(mask.defined() ? x * mask : x, a_, rows);
  const auto update = expand_runs(record.hidden, scaled_b_t_, onto, x.scalar_type(), rows);
  nn::RowRecord below{.first_row = record.first_row, .rows = record.rows, .groups = record.groups};
  return base_->forward_rows(x, update, below);
}

torch::Tensor GroupedLora::backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                         nn::RowRecord& record) const {
  const auto num_groups = a_.size(0);
  const auto rows = membership_of(record, x, a_);
  const auto mask = mask_of(dropout_mask_, record, x.size(0));
  const auto dz = shrink_runs(dy, scaled_b_t_, rows);
  record.gradients = {outer_runs(dz, mask.defined() ? x * mask : x, num_groups, rows),  // dA [G, r, d_in]
                      outer_runs(record.hidden, dy, num_groups, rows)};                 // dB^T / scaling [G, r, d_out]
  if (!needs_dx) return {};
  torch::Tensor update;
  if (mask.defined()) {
    update = expand_runs(dz, a_, {}, dy.scalar_type(), rows) * mask;
    if (onto.defined()) update += onto;
  } else {
    update = expand_runs(dz, a_, onto, dy.scalar_type(), rows);
  }
  return base_->backward_rows(dy, x, update, true, record);
}

void GroupedLora::add_gradients(const nn::RowRecord& record) const {
  torch::Tensor da = gradient_a_, db = gradient_b_;  // handles: what they refer to changes
  da.add_(record.gradients.at(0));
  db.add_(record.gradients.at(1).transpose(1, 2), scaling_);
}

std::int64_t GroupedLora::record_bytes() const { return a_.defined() ? a_.size(1) * static_cast<std::int64_t>(sizeof(float)) : 0; }

}  // namespace quiver::adapters
