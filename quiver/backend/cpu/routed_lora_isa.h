// Routing and routed LoRAs on the CPU, one namespace per instruction set, compiled from one source
// (routed_lora_isa.cpp). This header and its source include no C++ library code: an inline function
// compiled for AVX-512 must never be the copy that the linker keeps for everybody.
//
// All arithmetic is float32. What is computed for a token depends on that token alone, bit for bit:
// not on the rest of the batch, nor on the number of threads.
#pragma once

#include <cstdint>

#include "quiver/backend/cpu/bf16.h"

namespace quiver::backend::kernel {

/// Floats that rows of x and of lora_a are padded to, with zeros.
inline constexpr std::int64_t kRowPad = 16;
/// Adapters side by side in the packed prototypes.
inline constexpr std::int64_t kPanel = 16;
/// Columns of y computed at once: a block of all lora_b of this width stays in the first-level
/// cache.
inline constexpr std::int64_t kColumns = 64;

constexpr std::int64_t padded(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Tokens handled at once, so that their x, in float32, stays in the second-level cache.
constexpr std::int64_t tile_tokens(std::int64_t d_in) {
  const std::int64_t tokens = 131072 / (d_in + 1) / 16 * 16;
  return tokens < 16 ? 16 : tokens > 128 ? 128 : tokens;
}

/// Tokens x [T, d_in] to the top_k of num_adapters adapters each, by |<x, p_n>| scale_n + shift_n + bias_gn of the token's group g.
template <typename T>
struct ArrowTask {
  const T* x;
  const float* prototypes;  ///< [ceil(N / kPanel), d_in, kPanel], zeros beyond adapter N
  std::int64_t d_in, num_adapters, top_k;
  float temperature;
  const float* scale;          ///< [N]; null: 1
  const float* shift;          ///< [N]; null: 0
  const float* bias;           ///< [groups, N]; null: 0
  const std::int32_t* groups;  ///< [T]; null: all tokens are of group 0
  std::int64_t* index;         ///< [T, top_k]
  float* weight;               ///< [T, top_k]
};
constexpr std::int64_t arrow_scratch_floats(std::int64_t d_in, std::int64_t num_adapters) {
  return 16 * (padded(d_in, kRowPad) + padded(num_adapters, kPanel));
}

/// y [T, d_out] += the routed updates of x [T, d_in].
template <typename T>
struct LoraTask {
  const T* x;
  T* y;
  const float* lora_a;        ///< [N, rank, padded(d_in, kRowPad)]
  const float* lora_b;        ///< [N, ceil(d_out / kColumns), rank, kColumns]
  const float* scaling;       ///< [N]
  const std::int64_t* index;  ///< [T, top_k], in [0, N)
  const float* weight;        ///< [T, top_k]
  std::int64_t d_in, d_out, num_adapters, rank, top_k;
  bool mix_parameters;  ///< (sum w B)(sum w A) instead of sum w B A; then all scalings are equal
};
constexpr std::int64_t lora_scratch_floats(std::int64_t tokens, std::int64_t d_in, std::int64_t top_k, std::int64_t rank) {
  return tokens * (padded(d_in, kRowPad) + top_k * rank);
}
constexpr std::int64_t lora_scratch_ints(std::int64_t tokens, std::int64_t top_k, std::int64_t num_adapters) {
  return tokens * top_k + num_adapters + 1;
}

#define QUIVER_ROUTING_KERNELS(ISA)                                                                                                     \
  namespace ISA {                                                                                                                       \
  /* Tokens [begin, end); scratch of arrow_scratch_floats. */                                                                           \
  template <typename T>                                                                                                                 \
  void arrow_route(const ArrowTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch);                                     \
  /* |<x, rows[i]>| for `count` rows of d_in floats, with the bits that arrow_route computes. */                                        \
  void score_rows(const float* x, const float* const* rows, std::int64_t count, std::int64_t d_in, float* scores);                      \
  /* The top_k of n scores as arrow_route has them: scores scale + shift + bias, null for 1, 0 and 0, are left in `scores`. */          \
  void choose_adjusted(float* scores, std::int64_t n, const float* scale, const float* shift, const float* bias, std::int64_t top_k,    \
                       float temperature, std::int64_t* index, float* weight);                                                          \
  /* Tokens [begin, end), at most tile_tokens(d_in) of them; scratch of lora_scratch_floats and _ints of so many. */                    \
  template <typename T>                                                                                                                 \
  void add_routed(const LoraTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints);                   \
  /* hidden [T, top_k, rank] = A_n x_t alone, for the same tokens; y, lora_b, scaling and weight are not read. */                       \
  template <typename T>                                                                                                                 \
  void shrink_routed(const LoraTask<T>& task, std::int64_t begin, std::int64_t end, float* scratch, std::int32_t* ints, float* hidden); \
  }
QUIVER_ROUTING_KERNELS(v2)
QUIVER_ROUTING_KERNELS(v3)
QUIVER_ROUTING_KERNELS(v4)
QUIVER_ROUTING_KERNELS(v4bf16)
#undef QUIVER_ROUTING_KERNELS

}  // namespace quiver::backend::kernel
