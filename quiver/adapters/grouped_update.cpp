#include "quiver/adapters/grouped_update.h"

#include <torch/utils.h>

#include "quiver/backend/low_rank.h"
#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

/// Consecutive rows of one group.
struct Run {
  std::int64_t group = 0, begin = 0, size = 0;
};

std::vector<Run> runs_of(const nn::Rows& rows, std::int64_t num_rows, std::int64_t num_groups) {
  const auto groups = nn::row_groups(rows, num_rows);
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

torch::Tensor rows_of(const torch::Tensor& t, const Run& run) { return t.narrow(0, run.begin, run.size); }

/// How the rows of a batch belong to the groups. On the CPU by runs, each with products of its own. On a GPU, where many small products
/// take longer than a few large ones, all groups' factors one below another are one matrix, and `own` [T, G r] takes from its product what
/// is of a row's own group: 1 there, 0 elsewhere.
struct Membership {
  std::vector<Run> runs;
  torch::Tensor own;
};

Membership membership_of(const nn::Rows& rows, const torch::Tensor& x, const torch::Tensor& factors) {
  Membership members{runs_of(rows, x.size(0), factors.size(0)), {}};
  if (x.is_cpu() || members.runs.size() == 1) return members;
  const auto groups = torch::tensor(nn::row_groups(rows, x.size(0)), torch::kLong).to(x.device()).unsqueeze(1);  // [T, 1]
  const auto columns =
      torch::arange(factors.size(0), torch::TensorOptions(torch::kLong).device(x.device())).repeat_interleave(factors.size(1));
  members.own = groups.eq(columns).to(factors.scalar_type());
  return members;
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

GroupedUpdate::GroupedUpdate(const nn::Linear& below, double scaling)
    : in_(below.in_features()), out_(below.out_features()), scaling_(scaling) {}

void GroupedUpdate::set_factors(const torch::Tensor& lora_a, const torch::Tensor& lora_b) {
  if (lora_a.dim() != 3 || lora_b.dim() != 3 || lora_a.size(0) != lora_b.size(0) || lora_a.size(1) != lora_b.size(2) ||
      lora_a.size(2) != in_ || lora_b.size(1) != out_) {
    fail(ErrorKind::kMismatch, "LoRAs with lora_a {} and lora_b {} do not fit a projection of {} to {} features", tensor::describe(lora_a),
         tensor::describe(lora_b), in_, out_);
  }
  const torch::NoGradGuard no_grad;
  a_ = lora_a.detach().contiguous();
  scaled_b_t_ = (lora_b.detach() * scaling_).transpose(1, 2).contiguous();
}

torch::Tensor GroupedUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                                     nn::UpdateRecord& record) const {
  const auto members = membership_of(rows, x, a_);
  const auto mask = nn::take_rows(dropout_mask_, rows, x.size(0));
  const auto z = shrink_runs(mask.defined() ? x * mask : x, a_, members);
  record.saved = {z};
  return below.forward(x, expand_runs(z, scaled_b_t_, onto, x.scalar_type(), members));
}

void GroupedUpdate::backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx,
                             const nn::Rows& rows, nn::UpdateRecord& record) const {
  const auto num_groups = a_.size(0);
  const auto members = membership_of(rows, x, a_);
  const auto mask = nn::take_rows(dropout_mask_, rows, x.size(0));
  const auto dz = shrink_runs(dy, scaled_b_t_, members);
  record.gradients = {outer_runs(dz, mask.defined() ? x * mask : x, num_groups, members),  // dA [G, r, d_in]
                      outer_runs(record.saved[0], dy, num_groups, members)};               // dB^T / scaling [G, r, d_out]
  if (dx != nullptr) {
    if (mask.defined()) {
      const auto masked = expand_runs(dz, a_, {}, dy.scalar_type(), members).mul_(mask);
      *dx = dx->defined() ? masked.add_(*dx) : masked;
    } else {
      *dx = expand_runs(dz, a_, *dx, dy.scalar_type(), members);
    }
  }
  below.backward(dy, x, dx);
}

void GroupedUpdate::add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const {
  sink.sums.at(0).add_(gradients.at(0));
  sink.sums.at(1).add_(gradients.at(1).transpose(1, 2), scaling_);
}

std::int64_t GroupedUpdate::saved_bytes_per_row() const { return a_.defined() ? a_.size(1) * static_cast<std::int64_t>(sizeof(float)) : 0; }

}  // namespace quiver::adapters
