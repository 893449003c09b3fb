#include "quiver/routing/routed_lora_kernel.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>

#include "quiver/base/error.h"
#include "quiver/routing/kernels/routed_lora_isa.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

using kernel::ArrowTask;
using kernel::Bf16;
using kernel::LoraTask;

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
  const auto floats = torch::empty({threads, kernel::padded(scratch_floats, 16)}, torch::kFloat);
  const auto ints = torch::empty({threads, kernel::padded(scratch_ints, 16)}, torch::kInt);
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, threads, /*grain_size=*/1, [&](std::int64_t first, std::int64_t last) {
    for (auto thread = first; thread < last; ++thread) {
      float* my_floats = floats.data_ptr<float>() + thread * floats.size(1);
      std::int32_t* my_ints = ints.data_ptr<std::int32_t>() + thread * ints.size(1);
      for (auto i = next.fetch_add(1); i < num_tiles; i = next.fetch_add(1)) {
        f(i * tile, std::min(num_tokens, (i + 1) * tile), my_floats, my_ints);
      }
    }
  });
}

template <typename T>
void run_arrow(const PackedPrototypes& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
               const RoutingDecision& decision) {
  const ArrowTask<T> task{static_cast<const T*>(x.const_data_ptr()),
                          prototypes.panels.const_data_ptr<float>(),
                          x.size(1),
                          prototypes.num_adapters,
                          top_k,
                          static_cast<float>(temperature),
                          decision.index.data_ptr<std::int64_t>(),
                          decision.weight.data_ptr<float>()};
  for_tiles(x.size(0), 64, kernel::arrow_scratch_floats(task.d_in, task.num_adapters), 0,
            [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t*) {
              QUIVER_ON_CPU(kernel, arrow_route, task, begin, end, scratch);
            });
}

template <typename T>
void run_lora(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index, const torch::Tensor& weight,
              bool mix_parameters, const torch::Tensor& y) {
  const LoraTask<T> task{static_cast<const T*>(x.const_data_ptr()),
                         static_cast<T*>(y.data_ptr()),
                         adapters.lora_a.const_data_ptr<float>(),
                         adapters.lora_b.const_data_ptr<float>(),
                         adapters.scaling.const_data_ptr<float>(),
                         index.const_data_ptr<std::int64_t>(),
                         weight.const_data_ptr<float>(),
                         adapters.d_in,
                         adapters.d_out,
                         adapters.lora_a.size(0),
                         adapters.lora_a.size(1),
                         index.size(1),
                         mix_parameters};
  for_tiles(x.size(0), kernel::tile_tokens(task.d_in), kernel::lora_scratch_floats(task.d_in, task.top_k, task.rank),
            kernel::lora_scratch_ints(task.d_in, task.top_k, task.num_adapters),
            [&](std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints) {
              QUIVER_ON_CPU(kernel, add_routed, task, begin, end, scratch, ints);
            });
}

/// The kernels read adapters by these indices: a router's mistake must not become a wild read.
void check(const PackedAdapters& adapters, const torch::Tensor& x, const torch::Tensor& index, const torch::Tensor& weight,
           const torch::Tensor& y) {
  const auto num_tokens = x.size(0);
  if (x.size(1) != adapters.d_in || y.size(0) != num_tokens || y.size(1) != adapters.d_out || !y.is_contiguous() ||
      y.scalar_type() != x.scalar_type() || index.dim() != 2 || index.size(0) != num_tokens || weight.sizes() != index.sizes()) {
    fail(ErrorKind::kInternal, "routed LoRA: x {}, y {}, index {} and weight {} do not fit together", tensor::describe(x),
         tensor::describe(y), tensor::describe(index), tensor::describe(weight));
  }
  const auto* indices = index.const_data_ptr<std::int64_t>();
  const auto num_adapters = adapters.lora_a.size(0);
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    if (indices[i] < 0 || indices[i] >= num_adapters) {
      fail(ErrorKind::kInternal, "a router chose adapter {} of {}", indices[i], num_adapters);
    }
  }
}

}  // namespace

bool has_kernel(const torch::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == torch::kFloat || x.scalar_type() == torch::kBFloat16);
}

PackedPrototypes pack_prototypes(const torch::Tensor& prototypes) {
  const torch::NoGradGuard no_grad;
  const auto rows = prototypes.detach().to(torch::kCPU, torch::kFloat);
  const auto num_adapters = rows.size(0);
  const auto panels = kernel::padded(num_adapters, kernel::kPanel) / kernel::kPanel;
  auto whole = torch::zeros({panels * kernel::kPanel, rows.size(1)}, torch::kFloat);
  whole.narrow(0, 0, num_adapters).copy_(rows);
  return {whole.reshape({panels, kernel::kPanel, rows.size(1)}).transpose(1, 2).contiguous(), num_adapters};
}

RoutingDecision route_packed(const PackedPrototypes& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature) {
  const auto tokens = x.contiguous();
  RoutingDecision decision{torch::empty({x.size(0), top_k}, torch::kLong), torch::empty({x.size(0), top_k}, torch::kFloat)};
  if (x.size(0) == 0) return decision;
  if (x.scalar_type() == torch::kFloat) {
    run_arrow<float>(prototypes, tokens, top_k, temperature, decision);
  } else {
    run_arrow<Bf16>(prototypes, tokens, top_k, temperature, decision);
  }
  return decision;
}

PackedAdapters pack_adapters(std::span<const lora::LoraPair> pairs) {
  const torch::NoGradGuard no_grad;
  const auto num_adapters = static_cast<std::int64_t>(pairs.size());
  PackedAdapters packed;
  packed.d_in = pairs.front().in_features();
  packed.d_out = pairs.front().out_features();
  std::int64_t rank = 0;
  for (const auto& pair : pairs) rank = std::max(rank, pair.rank());

  const auto num_blocks = kernel::padded(packed.d_out, kernel::kColumns) / kernel::kColumns;
  packed.lora_a = torch::zeros({num_adapters, rank, kernel::padded(packed.d_in, kernel::kPad)}, torch::kFloat);
  packed.scaling = torch::empty({num_adapters}, torch::kFloat);
  auto rows_of_b = torch::zeros({num_adapters, rank, num_blocks * kernel::kColumns}, torch::kFloat);
  for (std::int64_t n = 0; n < num_adapters; ++n) {
    const auto& pair = pairs[static_cast<std::size_t>(n)];
    packed.lora_a[n].narrow(0, 0, pair.rank()).narrow(1, 0, packed.d_in).copy_(pair.lora_a().detach());
    rows_of_b[n].narrow(0, 0, pair.rank()).narrow(1, 0, packed.d_out).copy_(pair.lora_b().detach().t());
    packed.scaling[n] = pair.scaling();
  }
  packed.lora_b = rows_of_b.reshape({num_adapters, rank, num_blocks, kernel::kColumns}).permute({2, 0, 1, 3}).contiguous();
  return packed;
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
