#include "quiver/nn/attention_kernel.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/nn/kernels/attention_isa.h"
#include "quiver/nn/row_parts.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::nn {
namespace {

using kernel::AttentionUnit;
using kernel::Bf16;
using kernel::KeySpan;
using kernel::QueryBlock;
using tensor::mutable_raw_data;
using tensor::raw_data;

/// The plan in the kernels' terms; `relative` spans of a tree are made so by the kernels.
std::vector<QueryBlock> query_blocks(const AttentionPlan& plan) {
  static_assert(sizeof(KeySpan) == sizeof(AttentionPlan::Span));
  std::vector<QueryBlock> blocks;
  for (const auto& block : plan.blocks) {
    blocks.push_back({block.first_query, block.first_key, block.length, block.num_visible,
                      block.spans_end - block.spans_begin,
                      reinterpret_cast<const KeySpan*>(plan.spans.data() + block.spans_begin)});
  }
  return blocks;
}

template <typename T>
void forward_unit(const AttentionUnit<T>& unit) {
  if constexpr (std::is_same_v<T, Bf16>) {
    if (tensor::cpu_isa() == tensor::CpuIsa::kV4Bf16) return kernel::v4bf16::attention_forward(unit);
  }
  switch (tensor::cpu_isa()) {
    case tensor::CpuIsa::kV4Bf16:
    case tensor::CpuIsa::kV4: return kernel::v4::attention_forward(unit);
    case tensor::CpuIsa::kV3: return kernel::v3::attention_forward(unit);
    case tensor::CpuIsa::kV2: return kernel::v2::attention_forward(unit);
  }
}
template <typename T>
void backward_unit(const AttentionUnit<T>& unit) {
  if constexpr (std::is_same_v<T, Bf16>) {
    if (tensor::cpu_isa() == tensor::CpuIsa::kV4Bf16) return kernel::v4bf16::attention_backward(unit);
  }
  switch (tensor::cpu_isa()) {
    case tensor::CpuIsa::kV4Bf16:
    case tensor::CpuIsa::kV4: return kernel::v4::attention_backward(unit);
    case tensor::CpuIsa::kV3: return kernel::v3::attention_backward(unit);
    case tensor::CpuIsa::kV2: return kernel::v2::attention_backward(unit);
  }
}
template <typename T>
void decode_unit(const AttentionUnit<T>& unit) {
  switch (tensor::cpu_isa()) {
    case tensor::CpuIsa::kV4Bf16:
    case tensor::CpuIsa::kV4: return kernel::v4::attention_decode(unit);
    case tensor::CpuIsa::kV3: return kernel::v3::attention_decode(unit);
    case tensor::CpuIsa::kV2: return kernel::v2::attention_decode(unit);
  }
}

template <typename T>
AttentionUnit<T> unit_of(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, double scale) {
  AttentionUnit<T> unit{};
  unit.q = raw_data<T>(q);
  unit.k = raw_data<T>(k);
  unit.v = raw_data<T>(v);
  unit.num_queries = q.size(0);
  unit.num_heads = q.size(1);
  unit.num_kv_heads = k.size(1);
  unit.head_dim = q.size(2);
  unit.scale = static_cast<float>(scale);
  return unit;
}

/// Runs f(index, scratch) for all units, each thread with a scratch of its own. Units differ in size, so threads take
/// them one at a time; what a unit computes does not depend on who computes it.
template <typename F>
void for_units(std::int64_t count, std::int64_t scratch_floats, F f) {
  const auto threads = std::min<std::int64_t>(at::get_num_threads(), count);
  auto scratch = torch::empty({std::max<std::int64_t>(threads, 1), kernel::padded(scratch_floats)}, torch::kFloat);
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto thread = begin; thread < end; ++thread) {
      float* mine = scratch.data_ptr<float>() + thread * scratch.size(1);
      for (auto i = next.fetch_add(1); i < count; i = next.fetch_add(1)) f(i, mine);
    }
  });
}

std::int64_t most_spans(const AttentionPlan& plan) {
  std::int64_t spans = 0;
  for (const auto& block : plan.blocks) spans = std::max(spans, block.spans_end - block.spans_begin);
  return spans;
}

/// Floats of scratch for any tree of the plan.
std::int64_t tree_scratch(const AttentionPlan& plan, std::int64_t head_dim) {
  std::int64_t keys = 0;
  for (const auto& tree : plan.trees) keys = std::max(keys, tree.num_keys);
  return kernel::scratch_floats(keys, most_spans(plan), head_dim);
}

template <typename T>
void set_tree(AttentionUnit<T>& unit, const AttentionPlan& plan, const std::vector<QueryBlock>& blocks, std::int64_t index) {
  const auto& tree = plan.trees[static_cast<std::size_t>(index / unit.num_heads)];
  unit.head = index % unit.num_heads;
  unit.first_key = tree.first_key;
  unit.num_keys = tree.num_keys;
  unit.blocks = blocks.data() + tree.blocks_begin;
  unit.num_blocks = tree.blocks_end - tree.blocks_begin;
}

template <typename T>
void run_forward(AttentionUnit<T> unit, const AttentionPlan& plan, torch::Tensor& out, torch::Tensor& lse) {
  const auto blocks = query_blocks(plan);
  unit.most_spans = most_spans(plan);
  unit.out = mutable_raw_data<T>(out);
  unit.lse = mutable_raw_data<float>(lse);
  if (!plan.trees.empty()) {
    for_units(static_cast<std::int64_t>(plan.trees.size()) * unit.num_heads,
              tree_scratch(plan, unit.head_dim), [&](std::int64_t index, float* scratch) {
                auto mine = unit;
                mine.scratch = scratch;
                set_tree(mine, plan, blocks, index);
                forward_unit(mine);
              });
    return;
  }
  std::int64_t most = 0;
  for (const auto& block : plan.blocks) most = std::max(most, block.num_visible + block.length);
  const auto group = unit.num_heads / unit.num_kv_heads;
  for_units(static_cast<std::int64_t>(blocks.size()) * unit.num_kv_heads,
            kernel::decode_scratch_floats(most, unit.head_dim, group), [&](std::int64_t index, float* scratch) {
              auto mine = unit;
              mine.scratch = scratch;
              mine.head = index % unit.num_kv_heads;
              mine.blocks = blocks.data() + index / unit.num_kv_heads;
              mine.num_blocks = 1;
              decode_unit(mine);
            });
}

template <typename T>
void run_backward(AttentionUnit<T> unit, const AttentionPlan& plan, const torch::Tensor& dout, const torch::Tensor& out,
                  const torch::Tensor& lse, torch::Tensor& dq, torch::Tensor& dk, torch::Tensor& dv) {
  const auto blocks = query_blocks(plan);
  unit.most_spans = most_spans(plan);
  unit.dout = raw_data<T>(dout);
  unit.out_in = raw_data<T>(out);
  unit.lse = const_cast<float*>(raw_data<float>(lse));
  unit.dq = mutable_raw_data<T>(dq);
  const auto keys_and_width = dk.size(1) * dk.size(2);
  for_units(static_cast<std::int64_t>(plan.trees.size()) * unit.num_heads,
            tree_scratch(plan, unit.head_dim), [&](std::int64_t index, float* scratch) {
              auto mine = unit;
              mine.scratch = scratch;
              set_tree(mine, plan, blocks, index);
              const auto offset = mine.head * keys_and_width + mine.first_key * dk.size(2);
              mine.dk = mutable_raw_data<float>(dk) + offset;
              mine.dv = mutable_raw_data<float>(dv) + offset;
              backward_unit(mine);
            });
}

/// [H, Tk, width] partial gradients per query head -> [Tk, H_kv, D].
torch::Tensor sum_group(const torch::Tensor& partial, const torch::Tensor& like) {
  const auto kv_heads = like.size(1), group = partial.size(0) / kv_heads;
  auto sum = torch::empty_like(like);
  RowParts(like.size(0)).for_each([&](const RowPart& part) {
    sum.narrow(0, part.begin, part.size())
        .copy_(partial.view({kv_heads, group, partial.size(1), partial.size(2)})
                   .narrow(2, part.begin, part.size())
                   .sum(1)
                   .narrow(2, 0, like.size(2))
                   .transpose(0, 1));
  });
  return sum;
}

}  // namespace

std::tuple<torch::Tensor, torch::Tensor> attention_forward(const torch::Tensor& q, const torch::Tensor& k,
                                                           const torch::Tensor& v, const AttentionPlan& plan,
                                                           double scale) {
  const torch::NoGradGuard no_grad;
  auto out = torch::empty_like(q);
  auto lse = torch::empty({q.size(1), q.size(0)}, torch::kFloat);
  if (q.scalar_type() == torch::kFloat) {
    run_forward(unit_of<float>(q, k, v, scale), plan, out, lse);
  } else {
    run_forward(unit_of<Bf16>(q, k, v, scale), plan, out, lse);
  }
  return {out, lse};
}

std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> attention_backward(
    const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
    const torch::Tensor& out, const torch::Tensor& lse, const AttentionPlan& plan, double scale) {
  const torch::NoGradGuard no_grad;
  if (plan.trees.empty()) fail(ErrorKind::kInternal, "attention over a KV cache has no backward pass");
  auto dq = torch::empty_like(q);
  auto dk = torch::empty({q.size(1), k.size(0), kernel::padded(q.size(2))}, torch::kFloat);
  auto dv = torch::empty_like(dk);
  if (q.scalar_type() == torch::kFloat) {
    run_backward(unit_of<float>(q, k, v, scale), plan, dout, out, lse, dq, dk, dv);
  } else {
    run_backward(unit_of<Bf16>(q, k, v, scale), plan, dout, out, lse, dq, dk, dv);
  }
  return {dq, sum_group(dk, k), sum_group(dv, v)};
}

}  // namespace quiver::nn
