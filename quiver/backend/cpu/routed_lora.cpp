#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "quiver/backend/cpu/coarse_scores.h"
#include "quiver/backend/cpu/columns.h"
#include "quiver/backend/cpu/routed_lora_isa.h"
#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend::cpu {
namespace {

using kernel::ArrowTask;
using kernel::kColumns;
using kernel::kPanel;
using kernel::kRowPad;
using kernel::LoraTask;
using kernel::padded;
using tensor::CpuIsa;
using tensor::mutable_trusted_data;
using tensor::trusted_data;

/// Tokens below which a second thread costs more than it brings.
constexpr std::int64_t kMinTokens = 8;

/// Runs f(begin, end, scratch of this thread) over tiles of tokens. Threads take tiles one at a
/// time, so that a busy core holds up one tile and not half of the batch; what a tile computes does
/// not depend on who computes it.
template <typename F>
void for_tiles(std::int64_t num_tokens, std::int64_t most_tokens, std::int64_t scratch_floats, std::int64_t scratch_ints, F f) {
  const auto threads = std::clamp<std::int64_t>(num_tokens / kMinTokens, 1, at::get_num_threads());
  // Two tiles per thread at least, as far as the tokens go.
  const auto tile =
      std::clamp<std::int64_t>((num_tokens + 2 * threads - 1) / (2 * threads), std::min(most_tokens, kMinTokens), most_tokens);
  const auto num_tiles = (num_tokens + tile - 1) / tile;
  const auto num_floats = kernel::padded(scratch_floats, 16), num_ints = kernel::padded(scratch_ints, 16);
  const auto floats = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(threads * num_floats));
  const auto ints = std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(threads * num_ints));
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, threads, /*grain_size=*/1, [&](std::int64_t first, std::int64_t last) {
    for (auto thread = first; thread < last; ++thread) {
      float* my_floats = floats.get() + thread * num_floats;
      std::int32_t* my_ints = ints.get() + thread * num_ints;
      for (auto i = next.fetch_add(1); i < num_tiles; i = next.fetch_add(1)) {
        f(i * tile, std::min(num_tokens, (i + 1) * tile), my_floats, my_ints);
      }
    }
  });
}

/// [ceil(N / 16), d_in, 16] float32: sixteen adapters side by side.
ScoreLayout pack_prototypes(const Tensor& rows) {
  const auto num_panels = padded(rows.size(0), kPanel) / kPanel;
  auto whole = torch::zeros({num_panels * kPanel, rows.size(1)}, torch::kFloat);
  whole.narrow(0, 0, rows.size(0)).copy_(rows);
  return {whole.reshape({num_panels, kPanel, rows.size(1)}).transpose(1, 2).contiguous(),
          std::make_shared<const CoarseScores>(pack_coarse(rows))};
}

/// [N, c, d_in padded to 16] float32.
ScoreLayout pack_vectors(const Tensor& rows) {
  auto packed = torch::zeros({rows.size(0), rows.size(1), padded(rows.size(2), kRowPad)}, torch::kFloat);
  packed.narrow(2, 0, rows.size(2)).copy_(rows);
  return {packed, nullptr};
}

/// lora_a [N, r, d_in padded to 16]; lora_b [N, ceil(d_out / 64), r, 64], B transposed, 64 columns of y at a time; scaling [N]; all
/// float32. A token reads an adapter's B in one run. Lower ranks are padded with zeros to the highest.
RoutedLayout pack_adapters(std::span<const LoraFactors> factors, torch::Device /*the CPU*/) {
  const auto num_adapters = static_cast<std::int64_t>(factors.size());
  const auto d_in = factors.front().lora_a.size(1), d_out = factors.front().lora_b.size(0);
  std::int64_t rank = 0;
  for (const auto& each : factors) rank = std::max(rank, each.lora_a.size(0));
  const auto num_blocks = padded(d_out, kColumns) / kColumns;
  RoutedLayout layout{.lora_a = torch::zeros({num_adapters, rank, padded(d_in, kRowPad)}, torch::kFloat),
                      .scaling = torch::empty({num_adapters}, torch::kFloat)};
  auto rows_of_b = torch::zeros({num_adapters, rank, num_blocks * kColumns}, torch::kFloat);
  for (std::int64_t n = 0; n < num_adapters; ++n) {
    const auto& [lora_a, lora_b, scaling] = factors[static_cast<std::size_t>(n)];
    layout.lora_a[n].narrow(0, 0, lora_a.size(0)).narrow(1, 0, d_in).copy_(lora_a);
    rows_of_b[n].narrow(0, 0, lora_a.size(0)).narrow(1, 0, d_out).copy_(lora_b.t());
    layout.scaling[n] = scaling;
  }
  layout.lora_b = rows_of_b.reshape({num_adapters, rank, num_blocks, kColumns}).transpose(1, 2).contiguous();
  return layout;
}

template <typename T>
ArrowTask<T> arrow_task(const ScoreVectors& prototypes, const Tensor& x, std::int64_t top_k, double temperature,
                        const ScoreAdjustment& adjustment, const Chosen& chosen) {
  const bool is_adjusted = adjustment.scale.defined();
  return {.x = trusted_data<T>(x),
          .prototypes = trusted_data<float>(prototypes.layout.packed),
          .d_in = x.size(1),
          .num_adapters = prototypes.num_adapters(),
          .top_k = top_k,
          .temperature = static_cast<float>(temperature),
          .scale = is_adjusted ? trusted_data<float>(adjustment.scale.on_cpu()) : nullptr,
          .shift = is_adjusted ? trusted_data<float>(adjustment.shift.on_cpu()) : nullptr,
          .bias = adjustment.bias.empty() ? nullptr : adjustment.bias.data(),
          .groups = adjustment.groups.empty() ? nullptr : adjustment.groups.data(),
          .index = mutable_trusted_data<std::int64_t>(chosen.index),
          .weight = mutable_trusted_data<float>(chosen.weight)};
}

/// What is done to the scores of token t.
template <typename T>
Adjustment adjustment_of(const ArrowTask<T>& task, std::int64_t t) {
  const auto group = task.groups == nullptr ? 0 : task.groups[t];
  return {task.scale, task.shift, task.bias == nullptr ? nullptr : task.bias + group * task.num_adapters};
}

/// Chooses for token t among some adapters, by their scores before adjustment.
template <CpuIsa kIsa, typename T>
void choose_among(const ArrowTask<T>& task, std::int64_t t, std::span<const std::int64_t> adapters, std::vector<float>& scores) {
  const auto whole = adjustment_of(task, t);
  std::vector<float> scale, shift, bias;  // of these adapters
  const auto take = [&](const float* of_all, std::vector<float>& values) -> const float* {
    if (of_all == nullptr) return nullptr;
    for (const auto n : adapters) values.push_back(of_all[n]);
    return values.data();
  };
  auto* index = task.index + t * task.top_k;
  QUIVER_ON_ISA(kIsa, kernel, choose_adjusted, scores.data(), std::ssize(adapters), take(whole.scale, scale), take(whole.shift, shift),
                take(whole.bias, bias), task.top_k, task.temperature, index, task.weight + t * task.top_k);
  for (std::int64_t j = 0; j < task.top_k; ++j) index[j] = adapters[static_cast<std::size_t>(index[j])];
}

/// `all` for token t, whose prototypes are read from memory for the candidates alone. What is chosen has the same bits: a score is one
/// chain of additions, wherever its prototype lies.
template <CpuIsa kIsa>
void route_by_candidates(const ScoreVectors& prototypes, const ArrowTask<float>& all, std::int64_t t) {
  const auto* x = all.x + t * all.d_in;
  const auto found = candidates(*prototypes.layout.coarse, x, all.top_k, adjustment_of(all, t));
  const auto* first = trusted_data<float>(prototypes.rows.on_cpu());
  std::vector<const float*> rows;
  for (const auto n : found) rows.push_back(first + n * all.d_in);
  std::vector<float> scores(found.size());
  QUIVER_ON_ISA(kIsa, kernel, score_rows, x, rows.data(), std::ssize(rows), all.d_in, scores.data());
  choose_among<kIsa>(all, t, found, scores);
}

/// More tokens share what is read of the prototypes.
constexpr std::int64_t kMostCoarseTokens = 4;

template <CpuIsa kIsa, typename T>
Chosen route(const ScoreVectors& prototypes, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto count = x.size(0);
  Chosen chosen{torch::empty({count, top_k}, torch::kLong), torch::empty({count, top_k}, torch::kFloat)};
  if (count == 0) return chosen;
  const auto task = arrow_task<T>(prototypes, x, top_k, temperature, adjustment, chosen);
  if constexpr (std::is_same_v<T, float>) {
    // A list of more than half of the adapters would read more than all panels do.
    if (count <= kMostCoarseTokens && 2 * top_k <= task.num_adapters && !prototypes.layout.coarse->is_empty()) {
      for (std::int64_t t = 0; t < count; ++t) route_by_candidates<kIsa>(prototypes, task, t);
      return chosen;
    }
  }
  for_tiles(count, 64, kernel::arrow_scratch_floats(task.d_in, task.num_adapters), 0,
            [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t*) {
              QUIVER_ON_ISA(kIsa, kernel, arrow_route, task, begin, end, scratch);
            });
  return chosen;
}

/// What all routed products read. The kernels read adapters by `index`: a router's mistake must not become a wild read.
template <typename T>
LoraTask<T> lora_task(const Tensor& lora_a, const Tensor& x, const Tensor& index) {
  const auto num_adapters = lora_a.size(0);
  const auto* chosen = trusted_data<std::int64_t>(index);
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    if (chosen[i] < 0 || chosen[i] >= num_adapters) fail(ErrorKind::kInternal, "a router chose adapter {} of {}", chosen[i], num_adapters);
  }
  return {.x = trusted_data<T>(x),
          .lora_a = trusted_data<float>(lora_a),
          .index = chosen,
          .d_in = x.size(1),
          .num_adapters = num_adapters,
          .rank = lora_a.size(1),
          .top_k = index.size(1)};
}

template <typename T, typename F>
void for_lora_tiles(const LoraTask<T>& task, std::int64_t num_tokens, F f) {
  const auto most = std::min(num_tokens, kernel::tile_tokens(task.d_in));
  for_tiles(num_tokens, kernel::tile_tokens(task.d_in), kernel::lora_scratch_floats(most, task.d_in, task.top_k, task.rank),
            kernel::lora_scratch_ints(most, task.top_k, task.num_adapters), f);
}

template <CpuIsa kIsa, typename T>
Tensor shrink_routed(const ScoreVectors& vectors, const Tensor& x, const Tensor& index) {
  const auto task = lora_task<T>(vectors.layout.packed, x, index);
  auto hidden = torch::empty({x.size(0), task.top_k, task.rank}, torch::kFloat);
  if (x.size(0) == 0) return hidden;
  auto* found = mutable_trusted_data<float>(hidden);
  for_lora_tiles(task, x.size(0), [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
    QUIVER_ON_ISA(kIsa, kernel, shrink_routed, task, begin, end, scratch, ints, found);
  });
  return hidden;
}

template <CpuIsa kIsa, typename T>
Chosen route_shortlisted(const Shortlist& by, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto count = x.size(0), size = by.size;
  const auto listed = route<kIsa, T>(by.prototypes, x, size, 1, {}).index;  // [T, m]
  auto* list = mutable_trusted_data<std::int64_t>(listed);
  for (std::int64_t t = 0; t < count; ++t) std::sort(list + t * size, list + (t + 1) * size);  // ties go to the lower number
  const auto hidden = shrink_routed<kIsa, T>(by.vectors, x, listed);                           // [T, m, c]
  Chosen chosen{torch::empty({count, top_k}, torch::kLong), torch::empty({count, top_k}, torch::kFloat)};
  if (count == 0) return chosen;
  const auto task = arrow_task<T>(by.prototypes, x, top_k, temperature, adjustment, chosen);
  const auto num_vectors = hidden.size(2);
  const auto* products = trusted_data<float>(hidden);
  std::vector<float> scores(static_cast<std::size_t>(size));
  for (std::int64_t t = 0; t < count; ++t, list += size) {
    for (std::int64_t i = 0; i < size; ++i, products += num_vectors) {
      float sum = 0;
      for (std::int64_t c = 0; c < num_vectors; ++c) sum += products[c] * products[c];
      scores[static_cast<std::size_t>(i)] = std::sqrt(sum);
    }
    choose_among<kIsa>(task, t, std::span(list, static_cast<std::size_t>(size)), scores);
  }
  return chosen;
}

template <CpuIsa kIsa, typename T>
void add_routed(const RoutedAdapters& adapters, const Tensor& x, const Chosen& chosen, Combine combine, const Tensor& y) {
  auto task = lora_task<T>(adapters.layout.lora_a, x, chosen.index);
  if (x.size(0) == 0) return;
  task.y = mutable_trusted_data<T>(y);
  task.lora_b = trusted_data<float>(adapters.layout.lora_b);
  task.scaling = trusted_data<float>(adapters.layout.scaling);
  task.weight = trusted_data<float>(chosen.weight);
  task.d_out = adapters.d_out;
  task.mix_parameters = combine == Combine::kParams;
  for_lora_tiles(task, x.size(0), [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
    QUIVER_ON_ISA(kIsa, kernel, add_routed, task, begin, end, scratch, ints);
  });
}

}  // namespace

void add_routed_lora(Ops& column, CpuIsa isa, torch::Dtype dtype) {
  column.pack_prototypes = pack_prototypes;
  column.pack_vectors = pack_vectors;
  column.pack_adapters = pack_adapters;
  with_column(isa, dtype, [&]<CpuIsa kIsa, typename T>() {
    column.route = route<kIsa, T>;
    column.route_shortlisted = route_shortlisted<kIsa, T>;
    column.shrink_routed = shrink_routed<kIsa, T>;
    column.add_routed = add_routed<kIsa, T>;
  });
}

}  // namespace quiver::backend::cpu
