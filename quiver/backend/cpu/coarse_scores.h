// Prototypes in 8 bits, which tell most adapters that cannot be among a token's best.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "quiver/backend/quantized_matrix.h"

namespace quiver::backend::cpu {

/// Prototypes p_n [N, d_in] as p~_n in blocks of 8 bits (Q8_0), a quarter of their bytes, with e_n so that for every finite x
///
///   | |<x, p~_n>| - |<x, p_n>| |  <=  e_n ||x||,     e_n = ||p_n - p~_n|| + 2e-4 ||p_n||
///
/// by Cauchy and Schwarz. The second term covers x in 16 bits (at most 8.7e-5 ||x||), and the rounding of both sums in float32. Empty where
/// d_in is no multiple of 32, or for fewer adapters than a panel.
struct CoarseScores {
  QuantizedMatrix rows;
  std::vector<float> error;  ///< e, [N]
  bool is_empty() const { return error.empty(); }
};
/// rows [N, d_in] float32, contiguous, on the CPU.
CoarseScores pack_coarse(const torch::Tensor& rows);

/// How scores become comparable: score_n scale_n + shift_n + bias_n; null pointers stand for 1 and 0.
struct Adjustment {
  const float *scale = nullptr, *shift = nullptr, *bias = nullptr;
  float of(std::int64_t n, float score) const {
    if (scale != nullptr) score = score * scale[n] + shift[n];
    return bias != nullptr ? score + bias[n] : score;
  }
};
/// The adapters, in order, whose exact adjusted score may be among the top_k largest, for x [d_in]: every one that is among them is here,
/// and every one that ties with one. All adapters if x is not finite.
std::vector<std::int64_t> candidates(const CoarseScores& coarse, const float* x, std::int64_t top_k, const Adjustment& adjustment);

}  // namespace quiver::backend::cpu
