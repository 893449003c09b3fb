#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>

#include "quiver/backend/cpu/attention_isa.h"
#include "quiver/backend/cpu/columns.h"
#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/raw_data.h"

// Skips what is not visible, on all threads, with the same result for any number of them.
namespace quiver::backend::cpu {
namespace {

using kernel::AttentionUnit;
using kernel::GradientUse;
using kernel::KeySpan;
using kernel::QueryBlock;
using tensor::CpuIsa;
using tensor::mutable_trusted_data;
using tensor::trusted_data;
using Chunk = AttentionChunks::Chunk;

const KeySpan* in_kernels_terms(const AttentionSpan* spans) {
  static_assert(sizeof(KeySpan) == sizeof(AttentionSpan));
  return reinterpret_cast<const KeySpan*>(spans);
}

std::vector<QueryBlock> query_blocks(const std::vector<AttentionBlock>& blocks, const std::vector<AttentionSpan>& spans) {
  std::vector<QueryBlock> result;
  for (const auto& block : blocks) {
    result.push_back({block.first_query, block.first_key, block.length, block.num_visible, block.spans_end - block.spans_begin,
                      in_kernels_terms(spans.data() + block.spans_begin)});
  }
  return result;
}

template <typename T>
AttentionUnit<T> unit_of(const AttentionInput& in) {
  AttentionUnit<T> unit{};
  unit.q = trusted_data<T>(in.q);
  unit.k = trusted_data<T>(in.k);
  unit.v = trusted_data<T>(in.v);
  unit.num_queries = in.q.size(0);
  unit.num_heads = in.q.size(1);
  unit.num_kv_heads = in.k.size(1);
  unit.head_dim = in.q.size(2);
  unit.scale = static_cast<float>(in.scores.scale);
  unit.cap = static_cast<float>(in.scores.cap);
  unit.window = in.plan.window;
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
    const StageTimer timer(Stage::kAttention);
    for (auto thread = begin; thread < end; ++thread) {
      float* mine = mutable_trusted_data<float>(scratch) + thread * scratch.size(1);
      for (auto i = next.fetch_add(1); i < count; i = next.fetch_add(1)) f(i, mine);
    }
  });
}

std::int64_t most_spans(const std::vector<AttentionBlock>& blocks) {
  std::int64_t spans = 0;
  for (const auto& block : blocks) spans = std::max(spans, block.spans_end - block.spans_begin);
  return spans;
}

/// Calls f(unit, chunk's index) for every chunk and key head, on all threads.
template <typename T, typename F>
void for_chunks(AttentionUnit<T> unit, const AttentionChunks& work, F f) {
  const auto blocks = query_blocks(work.blocks, work.spans);
  unit.most_spans = most_spans(work.blocks);
  std::int64_t most_keys = 0;
  for (const auto& chunk : work.chunks) most_keys = std::max(most_keys, chunk.num_keys());
  for_units(static_cast<std::int64_t>(work.chunks.size()) * unit.num_kv_heads,
            kernel::scratch_floats(most_keys, unit.most_spans, unit.head_dim), [&](std::int64_t index, float* scratch) {
              const auto which = static_cast<std::size_t>(index / unit.num_kv_heads);
              const Chunk& chunk = work.chunks[which];
              auto mine = unit;
              mine.scratch = scratch;
              mine.kv_head = index % unit.num_kv_heads;
              mine.context = in_kernels_terms(work.context.data() + chunk.context_begin);
              mine.num_context_spans = chunk.context_end - chunk.context_begin;
              mine.first_row = chunk.first_row;
              mine.num_rows = chunk.num_rows;
              mine.num_keys = chunk.num_keys();
              mine.blocks = blocks.data() + chunk.blocks_begin;
              mine.num_blocks = chunk.blocks_end - chunk.blocks_begin;
              f(mine, which);
            });
}

template <CpuIsa kIsa, typename T>
void run_decode(AttentionUnit<T> unit, const AttentionPlan& plan) {
  const std::vector direct(plan.blocks.begin(), plan.blocks.begin() + plan.num_direct);
  const auto blocks = query_blocks(direct, plan.spans);
  std::int64_t most = 0;
  for (const auto& block : direct) most = std::max(most, block.num_visible + block.length);
  const auto heads = kernel::decode_unit_heads(std::ssize(blocks), unit.num_kv_heads, at::get_num_threads());
  const auto units_of_block = unit.num_kv_heads / heads;
  for_units(std::ssize(blocks) * units_of_block,
            kernel::decode_scratch_floats(most, unit.head_dim, heads * unit.num_heads / unit.num_kv_heads),
            [&](std::int64_t index, float* scratch) {
              auto mine = unit;
              mine.scratch = scratch;
              mine.kv_head = index % units_of_block * heads;
              mine.num_unit_heads = heads;
              mine.blocks = blocks.data() + index / units_of_block;
              mine.num_blocks = 1;
              QUIVER_ON_ISA(kIsa, kernel, attention_decode, mine);
            });
}

template <CpuIsa kIsa, typename T>
void run_forward(AttentionUnit<T> unit, const AttentionPlan& plan, Tensor& out, Tensor& lse) {
  unit.out = mutable_trusted_data<T>(out);
  unit.lse = mutable_trusted_data<float>(lse);
  if (plan.num_direct > 0) run_decode<kIsa>(unit, plan);
  if (!plan.chunks.chunks.empty())
    for_chunks(unit, plan.chunks, [](const AttentionUnit<T>& mine, std::size_t) { QUIVER_ON_ISA(kIsa, kernel, attention_forward, mine); });
}

/// Each unit finds the gradients of its chunk's keys, context included, in a place of its own; then each adds up those of
/// the chunk's own rows.
template <CpuIsa kIsa, typename T>
void run_backward(AttentionUnit<T> unit, const AttentionChunks& work, const Tensor& dout, const Attended& attended,
                  const AttentionGradient& gradient) {
  unit.dout = trusted_data<T>(dout);
  unit.out_in = trusted_data<T>(attended.out);
  unit.lse = const_cast<float*>(tensor::raw_data<float>(attended.lse, "lse of attention", {unit.num_heads, unit.num_queries}));
  unit.dq = mutable_trusted_data<T>(gradient.q);
  auto *dk = mutable_trusted_data<T>(gradient.k), *dv = mutable_trusted_data<T>(gradient.v);
  const auto width = kernel::padded(unit.head_dim);
  std::vector<std::int64_t> first_key = {0};  // of each chunk, among all their keys
  for (const auto& chunk : work.chunks) first_key.push_back(first_key.back() + chunk.num_keys());
  Tensor partial = torch::empty({2, unit.num_kv_heads, first_key.back(), width}, torch::kFloat);
  float* places = mutable_trusted_data<float>(partial);
  const auto place = [&](std::int64_t which, std::int64_t kv_head, std::size_t chunk, std::int64_t key) {
    return places + ((which * unit.num_kv_heads + kv_head) * first_key.back() + first_key[chunk] + key) * width;
  };
  for_chunks(unit, work, [&](AttentionUnit<T>& mine, std::size_t chunk) {
    mine.dk = place(0, mine.kv_head, chunk, 0);
    mine.dv = place(1, mine.kv_head, chunk, 0);
    QUIVER_ON_ISA(kIsa, kernel, attention_backward, mine);
  });
  for_chunks(unit, work, [&](AttentionUnit<T>& mine, std::size_t chunk) {
    mine.dk = place(0, mine.kv_head, chunk, 0);
    mine.dv = place(1, mine.kv_head, chunk, 0);
    const auto [begin, end] =
        std::equal_range(work.uses.begin(), work.uses.end(), AttentionChunks::Use{.owner = static_cast<std::int64_t>(chunk)},
                         [](const auto& a, const auto& b) { return a.owner < b.owner; });
    std::vector<GradientUse> uses;
    for (auto use = begin; use != end; ++use) {
      const auto user = static_cast<std::size_t>(use->user);
      uses.push_back({use->first_row - mine.first_row, use->length, place(0, mine.kv_head, user, use->first_key),
                      place(1, mine.kv_head, user, use->first_key)});
    }
    QUIVER_ON_ISA(kIsa, kernel, collect_gradients, mine, uses.data(), static_cast<std::int64_t>(uses.size()), dk, dv);
  });
}

template <CpuIsa kIsa, typename T>
Attended attention(const AttentionInput& in) {
  const torch::NoGradGuard no_grad;
  Attended attended{in.q.new_empty(in.q.sizes()), torch::empty({in.q.size(1), in.q.size(0)}, torch::kFloat)};
  run_forward<kIsa>(unit_of<T>(in), in.plan, attended.out, attended.lse);
  return attended;
}

template <CpuIsa kIsa, typename T>
AttentionGradient attention_gradient(const Tensor& dout, const AttentionInput& in, const Attended& attended) {
  const torch::NoGradGuard no_grad;
  const auto& work = in.plan.chunks;
  if (in.plan.num_direct > 0 || in.k.size(0) != in.q.size(0)) fail(ErrorKind::kInternal, "attention over a KV cache has no backward pass");
  AttentionGradient gradient{in.q.new_empty(in.q.sizes()), in.k.new_empty(in.k.sizes()), in.v.new_empty(in.v.sizes())};
  run_backward<kIsa>(unit_of<T>(in), work, dout, attended, gradient);
  return gradient;
}

}  // namespace

void add_attention(Ops& column, CpuIsa isa, torch::Dtype dtype) {
  with_column(isa, dtype, [&]<CpuIsa kIsa, typename T>() {
    column.attention = attention<kIsa, T>;
    column.attention_gradient = attention_gradient<kIsa, T>;
  });
}

}  // namespace quiver::backend::cpu
