#include "quiver/routing/routed_lora_kernel.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <atomic>

#include "quiver/backend/cpu/routed_lora_isa.h"
#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

using backend::kernel::ArrowTask;
using backend::kernel::Bf16;
using backend::kernel::LoraTask;
using tensor::mutable_raw_data;
using tensor::raw_data;

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
  const auto floats = torch::empty({threads, backend::kernel::padded(scratch_floats, 16)}, torch::kFloat);
  const auto ints = torch::empty({threads, backend::kernel::padded(scratch_ints, 16)}, torch::kInt);
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, threads, /*grain_size=*/1, [&](std::int64_t first, std::int64_t last) {
    for (auto thread = first; thread < last; ++thread) {
      float* my_floats = mutable_raw_data<float>(floats, "scratch of routing", floats.sizes()) + thread * floats.size(1);
      std::int32_t* my_ints = mutable_raw_data<std::int32_t>(ints, "scratch of routing", ints.sizes()) + thread * ints.size(1);
      for (auto i = next.fetch_add(1); i < num_tiles; i = next.fetch_add(1)) {
        f(i * tile, std::min(num_tokens, (i + 1) * tile), my_floats, my_ints);
      }
    }
  });
}

template <typename T>
void run_arrow(const PackedPrototypes& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
               const ScoreAdjustment& adjustment, const RoutingDecision& decision) {
  const auto count = x.size(0), d_in = x.size(1), num_adapters = prototypes.num_adapters;
  const auto num_panels = backend::kernel::padded(num_adapters, backend::kernel::kPanel) / backend::kernel::kPanel;
  const bool is_adjusted = adjustment.scale.defined();
  const auto bias = adjustment.bias == nullptr ? GroupTable::Rows() : adjustment.bias->rows();
  const ArrowTask<T> task{
      .x = raw_data<T>(x, "x of Arrow's kernel", {count, d_in}),
      .prototypes = raw_data<float>(prototypes.panels, "prototypes of Arrow's kernel", {num_panels, d_in, backend::kernel::kPanel}),
      .d_in = d_in,
      .num_adapters = num_adapters,
      .top_k = top_k,
      .temperature = static_cast<float>(temperature),
      .scale = is_adjusted ? raw_data<float>(adjustment.scale, "scale of Arrow's kernel", {num_adapters}) : nullptr,
      .shift = is_adjusted ? raw_data<float>(adjustment.shift, "shift of Arrow's kernel", {num_adapters}) : nullptr,
      .bias = bias.data(),
      .groups = adjustment.groups.empty() ? nullptr : adjustment.groups.data(),
      .index = mutable_raw_data<std::int64_t>(decision.index, "index of Arrow's kernel", {count, top_k}),
      .weight = mutable_raw_data<float>(decision.weight, "weight of Arrow's kernel", {count, top_k})};
  for_tiles(x.size(0), 64, backend::kernel::arrow_scratch_floats(task.d_in, task.num_adapters), 0,
            [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t*) {
              QUIVER_ON_CPU(backend::kernel, arrow_route, task, begin, end, scratch);
            });
}

template <typename T>
LoraTask<T> lora_task(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index) {
  LoraTask<T> task{};
  const auto num_adapters = adapters.lora_a.size(0), rank = adapters.lora_a.size(1);
  const auto num_blocks = backend::kernel::padded(adapters.d_out, backend::kernel::kColumns) / backend::kernel::kColumns;
  task.x = raw_data<T>(x, "x of routed LoRAs", {x.size(0), adapters.d_in});
  task.lora_a = raw_data<float>(adapters.lora_a, "lora_a of routed LoRAs",
                                {num_adapters, rank, backend::kernel::padded(adapters.d_in, backend::kernel::kPad)});
  task.lora_b = raw_data<float>(adapters.lora_b, "lora_b of routed LoRAs", {num_blocks, num_adapters, rank, backend::kernel::kColumns});
  task.scaling = raw_data<float>(adapters.scaling, "scaling of routed LoRAs", {num_adapters});
  task.index = raw_data<std::int64_t>(index, "index of routed LoRAs", {x.size(0), index.size(1)});
  task.d_in = adapters.d_in;
  task.d_out = adapters.d_out;
  task.num_adapters = num_adapters;
  task.rank = rank;
  task.top_k = index.size(1);
  return task;
}

template <typename T, typename F>
void for_lora_tiles(const LoraTask<T>& task, std::int64_t num_tokens, F f) {
  for_tiles(num_tokens, backend::kernel::tile_tokens(task.d_in), backend::kernel::lora_scratch_floats(task.d_in, task.top_k, task.rank),
            backend::kernel::lora_scratch_ints(task.d_in, task.top_k, task.num_adapters), f);
}

template <typename T>
void run_lora(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index, const torch::Tensor& weight,
              bool mix_parameters, const torch::Tensor& y) {
  auto task = lora_task<T>(adapters, x, index);
  task.y = mutable_raw_data<T>(y, "y of routed LoRAs", {x.size(0), adapters.d_out});
  task.weight = raw_data<float>(weight, "weight of routed LoRAs", index.sizes());
  task.mix_parameters = mix_parameters;
  for_lora_tiles(task, x.size(0), [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
    QUIVER_ON_CPU(backend::kernel, add_routed, task, begin, end, scratch, ints);
  });
}

template <typename T>
void run_shrink(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index, const torch::Tensor& hidden) {
  const auto task = lora_task<T>(adapters, x, index);
  float* found = mutable_raw_data<float>(hidden, "result of routed LoRAs", {x.size(0), task.top_k, task.rank});
  for_lora_tiles(task, x.size(0), [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
    QUIVER_ON_CPU(backend::kernel, shrink_routed, task, begin, end, scratch, ints, found);
  });
}

/// The kernels read adapters by these indices: a router's mistake must not become a wild read.
void check_index(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index) {
  if (x.size(1) != adapters.d_in || index.dim() != 2 || index.size(0) != x.size(0)) {
    fail(ErrorKind::kInternal, "routed LoRA: x {} and index {} do not fit together", tensor::describe(x), tensor::describe(index));
  }
  const auto num_adapters = adapters.lora_a.size(0);
  for (const auto chosen : tensor::elements<std::int64_t>(index, "index of routed LoRAs")) {
    if (chosen < 0 || chosen >= num_adapters) fail(ErrorKind::kInternal, "a router chose adapter {} of {}", chosen, num_adapters);
  }
}

void check(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index, const torch::Tensor& weight,
           const torch::Tensor& y) {
  if (y.size(0) != x.size(0) || y.size(1) != adapters.d_out || !y.is_contiguous() || y.scalar_type() != x.scalar_type() ||
      weight.sizes() != index.sizes()) {
    fail(ErrorKind::kInternal, "routed LoRA: x {}, y {}, index {} and weight {} do not fit together", tensor::describe(x),
         tensor::describe(y), tensor::describe(index), tensor::describe(weight));
  }
  check_index(adapters, x, index);
}

/// The kernel reads rows of the table by these.
void check_groups(const PackedPrototypes& prototypes, const torch::Tensor& x, const ScoreAdjustment& adjustment) {
  if (adjustment.bias == nullptr) return;
  if (adjustment.bias->width() != prototypes.num_adapters ||
      (!adjustment.groups.empty() && static_cast<std::int64_t>(adjustment.groups.size()) != x.size(0))) {
    fail(ErrorKind::kInternal, "a table of {} adapters and {} groups of rows for {} adapters and x {}", adjustment.bias->width(),
         adjustment.groups.size(), prototypes.num_adapters, tensor::describe(x));
  }
  const auto rows = adjustment.bias->rows();
  for (const auto group : adjustment.groups) rows.at(group);
}

}  // namespace

bool has_kernel(const torch::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == torch::kFloat || x.scalar_type() == torch::kBFloat16);
}

PackedPrototypes pack_prototypes(const torch::Tensor& prototypes) {
  const torch::NoGradGuard no_grad;
  const auto rows = prototypes.detach().to(torch::kCPU, torch::kFloat);
  const auto num_adapters = rows.size(0);
  const auto panels = backend::kernel::padded(num_adapters, backend::kernel::kPanel) / backend::kernel::kPanel;
  auto whole = torch::zeros({panels * backend::kernel::kPanel, rows.size(1)}, torch::kFloat);
  whole.narrow(0, 0, num_adapters).copy_(rows);
  return {whole.reshape({panels, backend::kernel::kPanel, rows.size(1)}).transpose(1, 2).contiguous(), num_adapters};
}

RoutingDecision route_packed(const PackedPrototypes& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
                             const ScoreAdjustment& adjustment) {
  const auto tokens = x.contiguous();
  RoutingDecision decision{torch::empty({x.size(0), top_k}, torch::kLong), torch::empty({x.size(0), top_k}, torch::kFloat)};
  if (x.size(0) == 0) return decision;
  check_groups(prototypes, x, adjustment);
  if (x.scalar_type() == torch::kFloat) {
    run_arrow<float>(prototypes, tokens, top_k, temperature, adjustment, decision);
  } else {
    run_arrow<Bf16>(prototypes, tokens, top_k, temperature, adjustment, decision);
  }
  return decision;
}

PackedAdapters pack_adapters(std::span<const adapters::LoraPair> pairs) {
  const torch::NoGradGuard no_grad;
  const auto num_adapters = static_cast<std::int64_t>(pairs.size());
  PackedAdapters packed;
  packed.d_in = pairs.front().in_features();
  packed.d_out = pairs.front().out_features();
  std::int64_t rank = 0;
  for (const auto& pair : pairs) rank = std::max(rank, pair.rank());

  const auto num_blocks = backend::kernel::padded(packed.d_out, backend::kernel::kColumns) / backend::kernel::kColumns;
  packed.lora_a = torch::zeros({num_adapters, rank, backend::kernel::padded(packed.d_in, backend::kernel::kPad)}, torch::kFloat);
  packed.scaling = torch::empty({num_adapters}, torch::kFloat);
  auto rows_of_b = torch::zeros({num_adapters, rank, num_blocks * backend::kernel::kColumns}, torch::kFloat);
  for (std::int64_t n = 0; n < num_adapters; ++n) {
    const auto& pair = pairs[static_cast<std::size_t>(n)];
    packed.lora_a[n].narrow(0, 0, pair.rank()).narrow(1, 0, packed.d_in).copy_(pair.lora_a().detach());
    rows_of_b[n].narrow(0, 0, pair.rank()).narrow(1, 0, packed.d_out).copy_(pair.lora_b().detach().t());
    packed.scaling[n] = pair.scaling();
  }
  packed.lora_b = rows_of_b.reshape({num_adapters, rank, num_blocks, backend::kernel::kColumns}).permute({2, 0, 1, 3}).contiguous();
  return packed;
}

torch::Tensor shrink_routed(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index) {
  const auto tokens = x.contiguous(), chosen = index.contiguous();
  check_index(adapters, tokens, chosen);
  auto hidden = torch::empty({x.size(0), index.size(1), adapters.lora_a.size(1)}, torch::kFloat);
  if (x.size(0) == 0) return hidden;
  if (x.scalar_type() == torch::kFloat) {
    run_shrink<float>(adapters, tokens, chosen, hidden);
  } else {
    run_shrink<Bf16>(adapters, tokens, chosen, hidden);
  }
  return hidden;
}

void add_routed(const PackedAdapters& adapters, const torch::Tensor& x, const RoutingDecision& decision, bool mix_parameters,
                const torch::Tensor& y) {
  const auto tokens = x.contiguous();
  const auto index = decision.index.contiguous();
  const auto weight = decision.weight.contiguous();
  check(adapters, tokens, index, weight, y);
  if (x.size(0) == 0) return;
  if (x.scalar_type() == torch::kFloat) {
    run_lora<float>(adapters, tokens, index, weight, mix_parameters, y);
  } else {
    run_lora<Bf16>(adapters, tokens, index, weight, mix_parameters, y);
  }
}

}  // namespace quiver::routing
