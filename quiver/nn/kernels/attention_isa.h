// Attention kernels, one namespace per instruction set, compiled from one source (attention_isa.cpp). This header and
// its source include no C++ library code: an inline function compiled for AVX-512 must never be the copy that the
// linker keeps for everybody.
#pragma once

#include <cstdint>

#include "quiver/nn/kernels/bf16.h"

namespace quiver::nn::kernel {

/// A span of keys that a block of queries sees, relative to the unit's first key (units over trees) or absolute.
struct KeySpan {
  std::int64_t first, length;
};

/// One segment of queries: rows [first_query, first_query + length), whose own keys start at first_key and which sees
/// all keys of `spans`.
struct QueryBlock {
  std::int64_t first_query, first_key, length, num_visible, num_spans;
  const KeySpan* spans;
};

/// One unit of work: one query head of one tree (or, when decoding, one key head of one block). Units write disjoint
/// memory. q, out, dout, dq: [Tq, H, D]; k, v: [Tk, H_kv, D]; lse: [H, Tq]; dk, dv: float [Tk, padded(D)] of this
/// head alone, the unit's keys of which it overwrites.
template <typename T>
struct AttentionUnit {
  const T *q, *k, *v, *dout, *out_in;
  T *out, *dq;
  float *lse, *dk, *dv;
  std::int64_t head, num_heads, num_kv_heads, head_dim, num_queries;
  std::int64_t first_key, num_keys;  ///< the tree's keys
  const QueryBlock* blocks;
  std::int64_t num_blocks;
  std::int64_t most_spans;  ///< of a block
  float scale;
  float* scratch;  ///< scratch_floats(num_keys, most_spans, head_dim) floats, 64-byte aligned
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
  return 4 * keys * dim + 4 * kQueryTile * scores_stride(num_keys, most_spans) + 7 * kQueryTile * dim;
}
/// Floats of scratch that a decoding unit needs.
constexpr std::int64_t decode_scratch_floats(std::int64_t num_visible, std::int64_t head_dim, std::int64_t group) {
  return padded(num_visible) + (1 + 2 * group) * padded(head_dim) + group * padded(num_visible);
}

#define QUIVER_ATTENTION_KERNELS(ISA)                       \
  namespace ISA {                                           \
  template <typename T>                                     \
  void attention_forward(const AttentionUnit<T>& unit);     \
  template <typename T>                                     \
  void attention_backward(const AttentionUnit<T>& unit);    \
  template <typename T>                                     \
  void attention_decode(const AttentionUnit<T>& unit);      \
  }
QUIVER_ATTENTION_KERNELS(v2)
QUIVER_ATTENTION_KERNELS(v3)
QUIVER_ATTENTION_KERNELS(v4)
QUIVER_ATTENTION_KERNELS(v4bf16)  // forward and backward of Bf16 alone
#undef QUIVER_ATTENTION_KERNELS

}  // namespace quiver::nn::kernel
