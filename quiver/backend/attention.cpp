#include "quiver/backend/attention.h"

#include <torch/utils.h>

#include <algorithm>
#include <iterator>

#include "quiver/backend/table.h"
#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

using tensor::expect_layout;

// Enough rows to make good for packing the context's keys, few enough to share out one tree evenly.
constexpr std::int64_t kChunkRows = 128;

/// The queries of blocks that go key by key, and of chunks.
std::int64_t num_shared_out(const AttentionPlan& plan) {
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < plan.num_direct; ++b) count += plan.blocks[static_cast<std::size_t>(b)].length;
  for (const auto& block : plan.chunks.blocks) count += block.length;
  return count;
}

void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan) {
  if (q.dim() != 3 || k.dim() != 3 || !k.sizes().equals(v.sizes()) || q.size(0) != plan.num_queries || k.size(0) != plan.num_keys ||
      q.size(2) != k.size(2) || k.size(1) < 1 || q.size(1) % k.size(1) != 0) {
    fail(ErrorKind::kMismatch,
         "attention over {} queries and {} keys: q is {}, k is {}, v is {}; expected [Tq, H, D] and twice [Tk, H_kv, D] with H a multiple "
         "of H_kv",
         plan.num_queries, plan.num_keys, tensor::describe(q), tensor::describe(k), tensor::describe(v));
  }
  if (const auto shared = num_shared_out(plan); shared != plan.num_queries) {
    fail(ErrorKind::kInternal, "a plan of {} queries shares out {} of them: neither key by key nor in chunks", plan.num_queries, shared);
  }
}

/// Contiguous q, k and v that fit the plan.
struct Operands {
  Tensor q, k, v;
};
Operands checked(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan) {
  check_shapes(q, k, v, plan);
  Operands operands{q.contiguous(), k.contiguous(), v.contiguous()};
  expect_layout(operands.k, "k of attention", q.device(), q.scalar_type(), k.sizes());
  expect_layout(operands.v, "v of attention", q.device(), q.scalar_type(), k.sizes());
  return operands;
}

}  // namespace

Tensor dense_mask(const AttentionPlan& plan) {
  auto seen = torch::zeros({plan.num_queries, plan.num_keys}, torch::kBool);
  for (const auto& block : plan.blocks) {
    auto rows = seen.narrow(0, block.first_query, block.length);
    for (auto s = block.spans_begin; s < block.spans_end; ++s) {
      const auto& span = plan.spans[static_cast<std::size_t>(s)];
      rows.narrow(1, span.first, span.length).fill_(true);
    }
    rows.narrow(1, block.first_key, block.length).copy_(torch::ones({block.length, block.length}, torch::kBool).tril());
    for (std::int64_t i = 0; plan.window > 0 && i < block.length; ++i) {
      auto beyond = block.num_visible + i + 1 - plan.window;  // keys of the path that the window leaves out
      const auto hide = [&](std::int64_t first, std::int64_t length) {
        const auto hidden = std::clamp<std::int64_t>(beyond, 0, length);
        rows[i].narrow(0, first, hidden).fill_(false);
        beyond -= hidden;
      };
      for (auto s = block.spans_begin; s < block.spans_end; ++s) {
        hide(plan.spans[static_cast<std::size_t>(s)].first, plan.spans[static_cast<std::size_t>(s)].length);
      }
      hide(block.first_key, block.length);
    }
  }
  return seen;
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

namespace {

/// A block for every query of `block`, of the spans that it sees within the window.
void append_windowed(const AttentionPlan& plan, const AttentionBlock& block, std::int64_t window, AttentionPlan& result) {
  for (std::int64_t i = 0; i < block.length; ++i) {
    AttentionBlock one{.first_query = block.first_query + i, .first_key = block.first_key + i, .length = 1};
    one.num_visible = std::min(block.num_visible + i, window - 1);
    one.spans_begin = std::ssize(result.spans);
    auto beyond = block.num_visible + i - one.num_visible;
    const auto add = [&](AttentionSpan span) {
      const auto hidden = std::min(beyond, span.length);
      beyond -= hidden;
      if (hidden < span.length) result.spans.push_back({span.first + hidden, span.length - hidden});
    };
    for (auto s = block.spans_begin; s < block.spans_end; ++s) add(plan.spans[static_cast<std::size_t>(s)]);
    add({block.first_key, i});
    one.spans_end = std::ssize(result.spans);
    result.blocks.push_back(one);
  }
}

}  // namespace

AttentionPlanPtr windowed(const AttentionPlanPtr& plan, std::int64_t window) {
  const auto fits = [&](const AttentionBlock& block) { return block.num_visible + block.length <= window; };
  if (window == 0 || std::ranges::all_of(plan->blocks, fits)) return plan;
  auto result = std::make_shared<AttentionPlan>(*plan);
  result->window = plan->chunks.chunks.empty() ? 0 : window;
  if (plan->num_direct == 0) return result;
  // Blocks that go key by key become a block for every query, of the spans that it still sees. The others are as before.
  const auto num_direct = static_cast<std::size_t>(plan->num_direct);
  result->blocks.clear();
  for (std::size_t b = 0; b < num_direct; ++b) append_windowed(*plan, plan->blocks[b], window, *result);
  result->num_direct = std::ssize(result->blocks);
  result->blocks.insert(result->blocks.end(), plan->blocks.begin() + plan->num_direct, plan->blocks.end());
  return result;
}

Tensor attention_bias(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype) {
  return ops(device, dtype).attention_bias(plan, device, dtype);
}

Attended forest_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlanPtr& plan, AttentionScores scores,
                          const Tensor& bias) {
  const auto in = checked(q, k, v, *plan);
  return ops_of(q).attention({in.q, in.k, in.v, *plan, scores, bias});
}

AttentionGradient forest_attention_gradient(const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Attended& attended,
                                            const AttentionPlanPtr& plan, AttentionScores scores, const Tensor& bias) {
  check_shapes(q, k, v, *plan);
  const auto device = q.device();
  const auto dtype = q.scalar_type();
  const auto upstream = dout.contiguous();
  expect_layout(upstream, "dout of attention", device, dtype, q.sizes());
  expect_layout(q, "q of attention", device, dtype, q.sizes());
  expect_layout(k, "k of attention", device, dtype, k.sizes());
  expect_layout(v, "v of attention", device, dtype, k.sizes());
  expect_layout(attended.out, "out of attention", device, dtype, q.sizes());
  return ops_of(q).attention_gradient(upstream, {q, k, v, *plan, scores, bias}, attended);
}

}  // namespace quiver::backend
