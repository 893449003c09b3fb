// Shared by the tests of lora and library.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/adapters/peft.h"
#include "quiver/base/random.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/io/test_support.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/message_of.h"

namespace quiver::adapters {

using io::TempFolder;
using testing::message_of;

/// A path of random_adapter, [6 -> 8].
inline constexpr const char* kPath = "layers.1.self_attn.q_proj";

/// Both factors random, on q_proj [6 -> 8] and v_proj [6 -> 4] of two layers. lora_a depends on `a_seed` alone.
inline LoraAdapter random_adapter(const std::string& name, std::int64_t rank = 2, double alpha = 4, std::uint64_t a_seed = 1) {
  LoraAdapter adapter;
  adapter.name = name;
  adapter.options = {.rank = rank, .alpha = alpha, .target_modules = {"q_proj", "v_proj"}};
  adapter.base_model = "llama-tiny";
  for (const std::string layer : {"layers.0.self_attn.", "layers.1.self_attn."}) {
    for (const std::string module : {"q_proj", "v_proj"}) {
      RandomStream a(a_seed, layer + module);
      RandomStream b(a_seed, name + layer + module);
      adapter.pairs.emplace(layer + module,
                            LoraPair(tensor::uniform({rank, 6}, 1, a), tensor::uniform({module == "q_proj" ? 8 : 4, rank}, 1, b), alpha));
    }
  }
  return adapter;
}

/// "a", "b" and "c", unlike in both factors.
inline std::vector<LoraAdapter> three_adapters() {
  return {random_adapter("a", 2, 4, 1), random_adapter("b", 2, 4, 2), random_adapter("c", 2, 4, 3)};
}

/// The same adapter with other factors of the same updates: (B M, M^-1 A) for a random M at every path.
inline LoraAdapter in_another_basis(const LoraAdapter& adapter, std::uint64_t seed) {
  auto result = adapter;
  for (auto& [path, pair] : result.pairs) {
    RandomStream random(seed, path);
    const auto wide = pair.to(torch::kCPU, torch::kDouble);
    const auto m = tensor::uniform({pair.rank(), pair.rank()}, 1, random).to(torch::kDouble) + 2 * torch::eye(pair.rank(), torch::kDouble);
    const auto dtype = pair.lora_a().scalar_type();
    pair = pair.with_tensors({m.inverse().matmul(wide.lora_a()).to(dtype), wide.lora_b().matmul(m).to(dtype)});
  }
  return result;
}

/// An adapter in float64.
inline LoraAdapter in_double(const LoraAdapter& adapter) {
  auto result = adapter;
  for (auto& [path, pair] : result.pairs) pair = pair.to(torch::kCPU, torch::kDouble);
  return result;
}

/// "a", "b" and "c" of ranks 2, 3 and `last_rank`, not all of one scaling. In float64.
inline std::vector<LoraAdapter> three_unequal_adapters(std::int64_t last_rank) {
  return {in_double(random_adapter("a", 2, 4, 1)), in_double(random_adapter("b", 3, 5, 2)),
          in_double(random_adapter("c", last_rank, 2, 3))};
}

/// The update of a pair, computed in float64.
inline torch::Tensor update_of(const LoraPair& pair) { return pair.to(torch::kCPU, torch::kDouble).delta(); }

/// |x - y| / |y|, Frobenius norms in float64.
inline double relative_difference(const torch::Tensor& x, const torch::Tensor& y) {
  const auto expected = y.to(torch::kDouble);
  return ((x.to(torch::kDouble) - expected).norm() / expected.norm()).item<double>();
}

/// The largest relative_difference of two adapters' updates, over paths.
inline double update_difference(const LoraAdapter& x, const LoraAdapter& y) {
  double largest = 0;
  for (const auto& [path, pair] : y.pairs) {
    largest = std::max(largest, relative_difference(update_of(x.pairs.at(path)), update_of(pair)));
  }
  return largest;
}

inline nlohmann::json config_of(const std::filesystem::path& folder) { return io::read_json_file(folder / kPeftConfigFile); }

/// A folder made by save_peft, with some of its configuration replaced.
inline std::filesystem::path with_config(const TempFolder& temp, const LoraAdapter& adapter, const nlohmann::json& changes) {
  const auto folder = temp.path() / "edited";
  save_peft(folder, adapter, /*force=*/true);
  auto config = config_of(folder);
  config.update(changes);
  io::write_file_atomic(folder / kPeftConfigFile, io::dump_json(config, "test"));
  return folder;
}

/// Whether two adapters have the same pairs, to the bit.
inline bool same_pairs(const LoraAdapter& a, const LoraAdapter& b) {
  if (a.pairs.size() != b.pairs.size()) return false;
  for (const auto& [path, pair] : a.pairs) {
    const auto found = b.pairs.find(path);
    if (found == b.pairs.end() || !std::ranges::equal(pair.tensors(), found->second.tensors(), torch::equal) ||
        pair.alpha() != found->second.alpha() || pair.use_rslora() != found->second.use_rslora()) {
      return false;
    }
  }
  return true;
}

}  // namespace quiver::adapters
