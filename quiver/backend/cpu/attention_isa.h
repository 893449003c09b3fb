// Attention kernels, one namespace per instruction set, compiled from one source (attention_isa.cpp). This header and
// its source include no C++ library code: an inline function compiled for AVX-512 must never be the copy that the
// linker keeps for everybody.
#pragma once

#include <cstdint>

#include "quiver/backend/cpu/bf16.h"

namespace quiver::backend::kernel {

/// A span of keys that a block of queries sees: by their numbers in the chunk, or, when decoding, cache rows.
struct KeySpan {
  std::int64_t first, length;
};

/// One segment of queries: rows [first_query, first_query + length), whose own keys start at first_key and which sees
/// all keys of `spans`.
struct QueryBlock {
  std::int64_t first_query, first_key, length, num_visible, num_spans;
  const KeySpan* spans;
};

/// One unit of work: the query heads of one key head, of one chunk (quiver/backend/attention_plan.h); or, when decoding, of some key heads
/// and one block. Units write disjoint memory. q, out, dout, dq: [Tq, H, D]; k, v: [Tk, H_kv, D]; lse: [H, Tq].
template <typename T>
struct AttentionUnit {
  const T *q, *k, *v, *dout, *out_in;
  T *out, *dq;
  float* lse;
  float *dk, *dv;               ///< [the chunk's keys, padded(D)] of this unit alone, overwritten
  std::int64_t kv_head;         ///< the first of the unit
  std::int64_t num_unit_heads;  ///< key heads of a unit that decodes
  std::int64_t num_heads, num_kv_heads, head_dim, num_queries;
  const KeySpan* context;  ///< rows of the chunk's first keys; then its own rows follow
  std::int64_t num_context_spans;
  std::int64_t first_row, num_rows, num_keys;
  const QueryBlock* blocks;
  std::int64_t num_blocks;
  std::int64_t most_spans;  ///< of a block
  float scale;
  float cap;            ///< scaled scores s become cap tanh(s / cap); 0: they do not
  std::int64_t window;  ///< a query sees the last `window` keys of its path; 0: all
  float* scratch;       ///< scratch_floats(num_keys, most_spans, head_dim) floats, 64-byte aligned
};

/// What another unit found for rows [first, first + length) of this one: [length, padded(D)].
struct GradientUse {
  std::int64_t first, length;
  const float *dk, *dv;
};

/// Rows of queries handled at once.
inline constexpr std::int64_t kQueryTile = 48;
/// Lanes that every row of scratch is padded to.
inline constexpr std::int64_t kPad = 16;

constexpr std::int64_t padded(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }

/// Columns of a row of scores: all keys, two to spare for every span and the block itself, and what whole vectors
/// write beyond.
constexpr std::int64_t scores_stride(std::int64_t num_keys, std::int64_t most_spans) {
  return padded(num_keys + 2 * (most_spans + 1)) + 3 * kPad;
}
/// Floats of scratch that the forward and backward units need.
constexpr std::int64_t scratch_floats(std::int64_t num_keys, std::int64_t most_spans, std::int64_t head_dim) {
  const std::int64_t keys = padded(num_keys) + kPad;
  const std::int64_t dim = padded(head_dim);
  return 4 * keys * dim + 4 * kQueryTile * scores_stride(num_keys, most_spans) + 5 * kQueryTile * dim;
}
/// Floats of scratch that a decoding unit of so many query heads needs.
constexpr std::int64_t decode_scratch_floats(std::int64_t num_visible, std::int64_t head_dim, std::int64_t num_query_heads) {
  return (1 + 2 * num_query_heads) * padded(head_dim) + num_query_heads * padded(num_visible);
}
/// Key heads of a decoding unit: all, whose rows lie side by side, unless there are too few blocks for the threads.
constexpr std::int64_t decode_unit_heads(std::int64_t num_blocks, std::int64_t num_kv_heads, std::int64_t num_threads) {
  return num_blocks >= 2 * num_threads || num_threads == 1 ? num_kv_heads : 1;
}

#define QUIVER_ATTENTION_KERNELS(ISA)                                                                                 \
  namespace ISA {                                                                                                     \
  template <typename T>                                                                                               \
  void attention_forward(const AttentionUnit<T>& unit);                                                               \
  template <typename T>                                                                                               \
  void attention_backward(const AttentionUnit<T>& unit);                                                              \
  /* Gradients of the chunk's own rows, its own and what its users found: into dk, dv [Tk, H_kv, D]. */               \
  template <typename T>                                                                                               \
  void collect_gradients(const AttentionUnit<T>& unit, const GradientUse* uses, std::int64_t num_uses, T* dk, T* dv); \
  template <typename T>                                                                                               \
  void attention_decode(const AttentionUnit<T>& unit);                                                                \
  }
QUIVER_ATTENTION_KERNELS(v2)
QUIVER_ATTENTION_KERNELS(v3)
QUIVER_ATTENTION_KERNELS(v4)
QUIVER_ATTENTION_KERNELS(v4bf16)
#undef QUIVER_ATTENTION_KERNELS

}  // namespace quiver::backend::kernel
