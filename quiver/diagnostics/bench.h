// What this machine can do at most, and how near the expensive parts come to it.
//
// Each result is a JSON object: what was measured (shapes, dtype), "seconds" of one run as {"median", "low", "high", "runs"} (low and high
// are the quartiles), and "gflops", the rate of the operations that the mathematics asks for, but for memory. Where there is a roofline,
// "gemm_gflops" is the rate of plain products measured in the same process, and "of_gemm" the share of it. Random data; uses all of
// libtorch's threads.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/model/model.h"
#include "quiver/tensor/tensor.h"

namespace quiver::diagnostics {

/// Plain matrix products over the shapes of a base model's linear maps, `rows` rows each. "shapes" has an entry for each;
/// "gflops" is over all of them together.
nlohmann::json bench_gemm(tensor::Placement placement, std::int64_t rows);

/// Reads `bytes` of memory from end to end, in shares of all threads, as decoding reads its weights: "gigabytes_per_second", 10^9 bytes
/// each.
nlohmann::json bench_memory(std::int64_t bytes);

/// A forest of `trees` alike: `shared` rows, below them `children` segments of `length` rows.
struct AttentionBench {
  std::int64_t trees = 4, shared = 128, children = 4, length = 64;
  std::int64_t num_heads = 9, num_kv_heads = 3, head_dim = 64;  ///< of SmolLM2-135M
};
/// "forward" and "backward": 4 H D and 10 H D operations for each pair of a query and a key it sees.
nlohmann::json bench_attention(tensor::Placement placement, const AttentionBench& bench);

/// A batch of sequences whose first `shared` tokens are common to all.
struct TrainingBench {
  std::int64_t batch_size = 16, length = 512, shared = 0;
  std::int64_t num_targets = 32;  ///< label tokens of a sequence, its last
  std::int64_t rank = 4;
  std::vector<std::string> target_modules;  ///< none: attention's maps, by the names of the base's family
  bool checkpoint_activations = false;
  std::int64_t steps = 5;  ///< measured, after one that is not
};
/// Optimiser steps on one batch. Operations: 4 for each parameter of the blocks' linear maps and row computed, 4 for each of
/// the head's and label (forward, and backward to the activations). "gflops_with_attention" counts 14 H D for each pair of a query and a
/// key that it sees, too, so that architectures can be compared. Also "tokens_per_second" of the sequences,
/// "rows_per_second" of what is computed, "peak_bytes" of the process.
nlohmann::json bench_training(const model::Model& base, const TrainingBench& bench);

/// A library of random adapters under Arrow.
struct RoutingBench {
  std::int64_t num_adapters = 256, rank = 4, top_k = 4;
  std::int64_t batch_size = 16, length = 128;
  std::int64_t rounds = 7;  ///< base, mixed parameters and mixed outputs in turn, after one round that is not counted
};
/// Scoring a batch of random sequences: seconds of the "base", of "params" and "outputs" (ways to mix), and "over_base", their medians'
/// ratios.
nlohmann::json bench_routing(const model::Model& base, const RoutingBench& bench);

}  // namespace quiver::diagnostics
