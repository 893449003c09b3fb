#include "quiver/backend/attention.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "quiver/backend/attention_kernel.h"
#include "quiver/backend/row_parts.h"
#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

// Enough rows to make good for packing the context's keys, few enough to share out one tree evenly.
constexpr std::int64_t kChunkRows = 128;

/// Rows of a bias begin at multiples of this many elements, as libtorch's kernels want them.
constexpr std::int64_t kBiasAlignment = 16;

bool has_fused(torch::Device device, torch::Dtype dtype) { return !device.is_cpu() && dtype != torch::kDouble; }

}  // namespace

torch::Tensor dense_mask(const AttentionPlan& plan) {
  auto seen = torch::zeros({plan.num_queries, plan.num_keys}, torch::kBool);
  for (const auto& block : plan.blocks) {
    auto rows = seen.narrow(0, block.first_query, block.length);
    for (auto s = block.spans_begin; s < block.spans_end; ++s) {
      const auto& span = plan.spans[static_cast<std::size_t>(s)];
      rows.narrow(1, span.first, span.length).fill_(true);
    }
    rows.narrow(1, block.first_key, block.length).copy_(torch::ones({block.length, block.length}, torch::kBool).tril());
  }
  return seen;
}

torch::Tensor attention_bias(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype) {
  if (!has_fused(device, dtype)) return {};
  const auto num_blocks = static_cast<std::int64_t>(plan.blocks.size());
  const auto counts = torch::TensorOptions(torch::kLong);
  auto of_block = torch::zeros({num_blocks, plan.num_keys}, torch::kBool);  // the keys of the spans
  auto block_of = torch::zeros({plan.num_queries}, counts), first = torch::zeros({plan.num_queries}, counts), last = first - 1;
  const auto seen_keys = tensor::mutable_elements<bool>(of_block, "keys of the spans");
  const auto blocks = tensor::mutable_elements<std::int64_t>(block_of, "blocks of the queries");
  const auto firsts = tensor::mutable_elements<std::int64_t>(first, "first keys"),
             lasts = tensor::mutable_elements<std::int64_t>(last, "last keys");
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    const auto& block = plan.blocks[static_cast<std::size_t>(b)];
    for (auto s = block.spans_begin; s < block.spans_end; ++s) {
      const auto& span = plan.spans[static_cast<std::size_t>(s)];
      std::fill_n(seen_keys.begin() + b * plan.num_keys + span.first, span.length, true);
    }
    std::fill_n(blocks.begin() + block.first_query, block.length, b);
    std::fill_n(firsts.begin() + block.first_query, block.length, block.first_key);
    std::iota(lasts.begin() + block.first_query, lasts.begin() + block.first_query + block.length, block.first_key);
  }
  const auto column = [&](const torch::Tensor& t) { return t.to(device).unsqueeze(1); };
  const auto keys = torch::arange(plan.num_keys, counts.device(device)).unsqueeze(0);
  const auto own = keys.ge(column(first)).logical_and_(keys.le(column(last)));  // [Tq, Tk]
  const auto seen = of_block.to(device).index_select(0, block_of.to(device)).logical_or_(own);
  const auto stride = divide_up(plan.num_keys, kBiasAlignment) * kBiasAlignment;
  auto bias = torch::zeros({plan.num_queries, stride}, torch::TensorOptions(dtype).device(device)).narrow(1, 0, plan.num_keys);
  return bias.masked_fill_(seen.logical_not(), -std::numeric_limits<double>::infinity());
}

AttentionPlanPtr plan_forest(const forest::TokenForest& forest) {
  auto plan = std::make_shared<AttentionPlan>();
  plan->num_queries = plan->num_keys = forest.num_rows();
  const auto segments = forest.segments();
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto& segment = segments[s];
    if (segment.length == 0) continue;
    AttentionBlock block{.first_query = segment.first_row, .first_key = segment.first_row, .length = segment.length};
    block.spans_begin = static_cast<std::int64_t>(plan->spans.size());
    for (const auto a : forest.ancestors(static_cast<std::int64_t>(s))) {
      const auto& above = segments[static_cast<std::size_t>(a)];
      if (above.length > 0) plan->spans.push_back({above.first_row, above.length});
      block.num_visible += above.length;
    }
    block.spans_end = static_cast<std::int64_t>(plan->spans.size());
    plan->blocks.push_back(block);
  }
  plan->chunks = cut_into_chunks(*plan, kChunkRows);
  return plan;
}

torch::Tensor reference_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan,
                                  double scale) {
  const auto group = q.size(1) / k.size(1);
  const auto compute = q.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto heads_first = [compute](const torch::Tensor& t) { return t.to(compute).transpose(0, 1); };
  const auto queries = heads_first(q);                                // [H, Tq, D]
  const auto keys = heads_first(k).repeat_interleave(group, 0);       // [H, Tk, D]
  const auto values = heads_first(v).repeat_interleave(group, 0);     // [H, Tk, D]
  const auto hidden = dense_mask(plan).to(q.device()).logical_not();  // [Tq, Tk]
  auto scores = queries.matmul(keys.transpose(1, 2)) * scale;         // [H, Tq, Tk]
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return scores.softmax(-1).matmul(values).transpose(0, 1).to(q.scalar_type());
}

namespace {

/// libtorch's attention, whose GPU kernels keep no scores.
torch::Tensor biased_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const torch::Tensor& bias,
                               double scale) {
  const auto group = q.size(1) / k.size(1);
  const auto heads_first = [](const torch::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };  // [1, H, T, D]
  const auto out = torch::scaled_dot_product_attention(heads_first(q), heads_first(k).repeat_interleave(group, 1),
                                                       heads_first(v).repeat_interleave(group, 1), bias, /*dropout_p=*/0.0,
                                                       /*is_causal=*/false, scale);
  return out.squeeze(0).transpose(0, 1);
}

/// Where our kernel does not run.
torch::Tensor plain_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan,
                              double scale, const torch::Tensor& bias) {
  if (!has_fused(q.device(), q.scalar_type())) return reference_attention(q, k, v, plan, scale);
  return biased_attention(q, k, v, bias.defined() ? bias : attention_bias(plan, q.device(), q.scalar_type()), scale);
}

void check_shapes(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan) {
  if (q.dim() != 3 || k.dim() != 3 || !k.sizes().equals(v.sizes()) || q.size(0) != plan.num_queries || k.size(0) != plan.num_keys ||
      q.size(2) != k.size(2) || k.size(1) < 1 || q.size(1) % k.size(1) != 0) {
    fail(ErrorKind::kMismatch,
         "attention over {} queries and {} keys: q is {}, k is {}, v is {}; expected [Tq, H, D] and twice [Tk, H_kv, D] with H a multiple "
         "of H_kv",
         plan.num_queries, plan.num_keys, tensor::describe(q), tensor::describe(k), tensor::describe(v));
  }
}

bool has_kernel(const torch::Tensor& q, const torch::Tensor& k) {
  return q.is_cpu() && (q.scalar_type() == torch::kFloat || q.scalar_type() == torch::kBFloat16) && q.scalar_type() == k.scalar_type();
}

/// Lets an autograd node keep the plan alive.
struct PlanHolder : torch::CustomClassHolder {
  explicit PlanHolder(AttentionPlanPtr p) : plan(std::move(p)) {}
  AttentionPlanPtr plan;
};

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const c10::intrusive_ptr<PlanHolder>& holder, double scale) {
    auto [out, lse] = attention_forward(q, k, v, *holder->plan, scale);
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(holder);
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = *static_cast<const PlanHolder*>(capsule.get())->plan;
    auto [dq, dk, dv] = attention_backward(grads[0].contiguous(), saved[0], saved[1], saved[2], saved[3], saved[4], plan,
                                           ctx->saved_data["scale"].toDouble());
    return {dq, dk, dv, torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor forest_attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlanPtr& plan,
                               double scale) {
  check_shapes(q, k, v, *plan);
  if (!has_kernel(q, k)) return plain_attention(q, k, v, *plan, scale, {});
  const auto holder = c10::make_intrusive<PlanHolder>(plan);
  const bool needs_grad = torch::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  if (!needs_grad) return std::get<0>(attention_forward(q.contiguous(), k.contiguous(), v.contiguous(), *plan, scale));
  return AttentionFunction::apply(q.contiguous(), k.contiguous(), v.contiguous(), holder, scale);
}

Attended forest_attention_rows(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlanPtr& plan,
                               double scale, const torch::Tensor& bias) {
  check_shapes(q, k, v, *plan);
  if (!has_kernel(q, k)) return {plain_attention(q, k, v, *plan, scale, bias).contiguous(), {}};
  auto [out, lse] = attention_forward(q.contiguous(), k.contiguous(), v.contiguous(), *plan, scale);
  return {out, lse};
}

AttentionGradient forest_attention_gradient(const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k,
                                            const torch::Tensor& v, const Attended& attended, const AttentionPlanPtr& plan, double scale,
                                            const torch::Tensor& bias) {
  if (has_kernel(q, k)) {
    auto [dq, dk, dv] = attention_backward(dout.contiguous(), q, k, v, attended.out, attended.lse, *plan, scale);
    return {dq, dk, dv};
  }
  const torch::AutoGradMode with_grad(true);
  const torch::autograd::variable_list inputs = {q.detach().requires_grad_(), k.detach().requires_grad_(), v.detach().requires_grad_()};
  const auto gradients = torch::autograd::grad({plain_attention(inputs[0], inputs[1], inputs[2], *plan, scale, bias)}, inputs, {dout});
  return {gradients[0].contiguous(), gradients[1].contiguous(), gradients[2].contiguous()};
}

}  // namespace quiver::backend
