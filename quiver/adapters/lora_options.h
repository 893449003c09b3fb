// What an adapter is trained as. Free of libtorch, as what reads it from a file is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quiver::adapters {

/// What an adapter is trained as: PEFT's LoraConfig in the parts that Quiver honours.
struct LoraOptions {
  std::int64_t rank = 4;
  double alpha = 16;
  double dropout = 0;
  bool use_rslora = false;
  bool use_dora = false;  ///< not with dropout, which would have to drop inputs of the base too
  /// Last names of projections, or tails of their paths ("self_attn.q_proj"); "all-linear" is every projection.
  std::vector<std::string> target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
};

/// Throws kUsage unless rank >= 1, alpha is finite, dropout is in [0, 1), and 0 for DoRA, and there is a target module.
void check(const LoraOptions& options);

}  // namespace quiver::adapters
