// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// All arithmetic is float32. Keys and values of a tree are unpacked once per head into rows of padded(D) floats (and,
// transposed, into rows of keys), so that every product below is one small GEMM with a unit-stride right side:
//
//   S = Q K^T    O = P V    dP = dO V^T    dS = P (dP - rowsum(dO O))    dQ = dS K    dK += dS^T Q    dV += P^T dO
//
// P is recomputed from the saved log-sum-exp in the backward pass (Dao et al. 2022, algorithm 4, without its tiling
// over keys: a tree's keys fit the cache).
#include "quiver/nn/kernels/attention_isa.h"

#include "quiver/nn/kernels/vector_isa.h"

namespace quiver::nn::kernel::QUIVER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

/// A strided left side: element (i, k) at data[i * row + k * column].
struct Left {
  const float* data;
  std::int64_t row, column;
};

template <int kRows, int kVectors>
QUIVER_INLINE void gemm_tile(std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                             bool accumulate) {
  Vec sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) sum[i][j] = accumulate ? load(c + i * ldc + j * kLanes) : Vec{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = load(b + k * ldb + j * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vec left = splat(a.data[i * a.row + k * a.column]);
      for (int j = 0; j < kVectors; ++j) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) store(c + i * ldc + j * kLanes, sum[i][j]);
  }
}

template <int kVectors>
QUIVER_INLINE void gemm_panel(std::int64_t rows, std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c,
                              std::int64_t ldc, bool accumulate) {
  std::int64_t i = 0;
  const auto left = [&] { return Left{a.data + i * a.row, a.row, a.column}; };
  for (; i + kTileRows <= rows; i += kTileRows) {
    gemm_tile<kTileRows, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate);
  }
  switch (rows - i) {
    case 5: gemm_tile<5, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 4: gemm_tile<4, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 3: gemm_tile<3, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 2: gemm_tile<2, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 1: gemm_tile<1, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    default: break;
  }
}

/// C [rows, columns] (+)= A [rows, depth] B [depth, columns]. Works on whole vectors: reads and writes up to
/// padded(columns) columns of every row.
void gemm(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left a, const float* b, std::int64_t ldb, float* c,
          std::int64_t ldc, bool accumulate) {
  std::int64_t j = 0;
  for (; j + kTileVectors * kLanes <= columns; j += kTileVectors * kLanes) {
    gemm_panel<kTileVectors>(rows, depth, a, b + j, ldb, c + j, ldc, accumulate);
  }
  for (; j < columns; j += kLanes) gemm_panel<1>(rows, depth, a, b + j, ldb, c + j, ldc, accumulate);
}

template <typename T>
void unpack_rows(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t dim, float factor, float* out) {
  const auto width = padded(dim);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t d = 0; d < dim; ++d) out[i * width + d] = factor * to_float(source[i * stride + d]);
    for (std::int64_t d = dim; d < width; ++d) out[i * width + d] = 0;
  }
}

/// rows [n, width] -> out [width, ld].
void transpose(const float* rows, std::int64_t n, std::int64_t width, float* out, std::int64_t ld) {
  for (std::int64_t i0 = 0; i0 < n; i0 += kPad) {
    const auto i1 = i0 + kPad < n ? i0 + kPad : n;
    for (std::int64_t d = 0; d < width; ++d) {
      for (std::int64_t i = i0; i < i1; ++i) out[d * ld + i] = rows[i * width + d];
    }
  }
  for (std::int64_t d = 0; d < width; ++d) {  // what gemm reads past the end must be finite
    for (std::int64_t i = n; i < ld; ++i) out[d * ld + i] = 0;
  }
}

/// The scratch of one unit, cut up.
template <typename T>
struct Workspace {
  std::int64_t dim, width, keys_ld, scores_ld;
  float *rows, *transposed, *transposed2, *scores, *gradients, *queries, *tile, *tile2, *tile3;

  explicit Workspace(const AttentionUnit<T>& unit)
      : dim(unit.head_dim), width(padded(unit.head_dim)), keys_ld(padded(unit.num_keys) + kPad), scores_ld(keys_ld + kPad) {
    float* next = unit.scratch;
    const auto take = [&next](std::int64_t count) {
      float* mine = next;
      next += count;
      return mine;
    };
    rows = take(keys_ld * width);
    transposed = take(keys_ld * width);
    transposed2 = take(keys_ld * width);
    scores = take(kQueryTile * scores_ld);
    gradients = take(kQueryTile * scores_ld);
    queries = take(kQueryTile * width);
    tile = take(kQueryTile * width);
    tile2 = take(kQueryTile * width);
    tile3 = take(kQueryTile * width);
  }
};

/// Calls f(first key within the tree, number of keys, column) for every run of keys that rows [row, row + count) of
/// the block may see. Returns the number of columns.
template <typename T, typename F>
QUIVER_INLINE std::int64_t for_each_run(const AttentionUnit<T>& unit, const QueryBlock& block, std::int64_t end, F f) {
  std::int64_t column = 0;
  for (std::int64_t s = 0; s < block.num_spans; ++s) {
    f(block.spans[s].first - unit.first_key, block.spans[s].length, column);
    column += block.spans[s].length;
  }
  f(block.first_key - unit.first_key, end, column);
  return column + end;
}

/// scores [count, columns] = Q K^T with Q in w.queries and K^T in `keys_t`.
template <typename T>
std::int64_t compute_scores(const AttentionUnit<T>& unit, const Workspace<T>& w, const QueryBlock& block, std::int64_t row,
                            std::int64_t count, const float* left, const float* keys_t, float* scores) {
  return for_each_run(unit, block, row + count, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
    gemm(count, length, w.width, {left, w.width, 1}, keys_t + first, w.keys_ld, scores + column, w.scores_ld, false);
  });
}

}  // namespace

template <typename T>
void attention_forward(const AttentionUnit<T>& unit) {
  const Workspace<T> w(unit);
  const auto kv_head = unit.head / (unit.num_heads / unit.num_kv_heads);
  const auto kv_stride = unit.num_kv_heads * w.dim, q_stride = unit.num_heads * w.dim;
  const auto kv_offset = unit.first_key * kv_stride + kv_head * w.dim;
  unpack_rows(unit.k + kv_offset, kv_stride, unit.num_keys, w.dim, 1.0f, w.rows);
  transpose(w.rows, unit.num_keys, w.width, w.transposed, w.keys_ld);
  unpack_rows(unit.v + kv_offset, kv_stride, unit.num_keys, w.dim, 1.0f, w.rows);

  for (std::int64_t b = 0; b < unit.num_blocks; ++b) {
    const QueryBlock& block = unit.blocks[b];
    for (std::int64_t row = 0; row < block.length; row += kQueryTile) {
      const auto count = row + kQueryTile < block.length ? kQueryTile : block.length - row;
      const auto q_offset = (block.first_query + row) * q_stride + unit.head * w.dim;
      unpack_rows(unit.q + q_offset, q_stride, count, w.dim, unit.scale, w.queries);
      const auto columns = compute_scores(unit, w, block, row, count, w.queries, w.transposed, w.scores);
      float inverse[kQueryTile];
      for (std::int64_t i = 0; i < count; ++i) {
        float* p = w.scores + i * w.scores_ld;
        const auto seen = block.num_visible + row + i + 1;
        for (auto j = seen; j < columns + kPad; ++j) p[j] = -__builtin_inff();
        Vec top = load(p);
        for (std::int64_t j = kLanes; j < seen; j += kLanes) {
          const Vec x = load(p + j);
          top = x > top ? x : top;
        }
        float highest = top[0];
        for (int l = 1; l < kLanes; ++l) highest = top[l] > highest ? top[l] : highest;
        Vec total = {};
        for (std::int64_t j = 0; j < columns; j += kLanes) {
          const Vec e = exp_negative(load(p + j) - highest);
          store(p + j, e);
          total += e;
        }
        float sum = 0;
        for (int l = 0; l < kLanes; ++l) sum += total[l];
        inverse[i] = 1.0f / sum;
        unit.lse[unit.head * unit.num_queries + block.first_query + row + i] = highest + __builtin_logf(sum);
      }
      bool accumulate = false;
      for_each_run(unit, block, row + count, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
        gemm(count, w.width, length, {w.scores + column, w.scores_ld, 1}, w.rows + first * w.width, w.width, w.tile, w.width,
             accumulate);
        accumulate = true;
      });
      for (std::int64_t i = 0; i < count; ++i) {
        T* out = unit.out + q_offset + i * q_stride;
        for (std::int64_t d = 0; d < w.dim; ++d) from_float(w.tile[i * w.width + d] * inverse[i], out[d]);
      }
    }
  }
}

template <typename T>
void attention_backward(const AttentionUnit<T>& unit) {
  const Workspace<T> w(unit);
  const auto kv_head = unit.head / (unit.num_heads / unit.num_kv_heads);
  const auto kv_stride = unit.num_kv_heads * w.dim, q_stride = unit.num_heads * w.dim;
  const auto kv_offset = unit.first_key * kv_stride + kv_head * w.dim;
  unpack_rows(unit.v + kv_offset, kv_stride, unit.num_keys, w.dim, 1.0f, w.rows);
  transpose(w.rows, unit.num_keys, w.width, w.transposed2, w.keys_ld);  // V^T
  unpack_rows(unit.k + kv_offset, kv_stride, unit.num_keys, w.dim, 1.0f, w.rows);
  transpose(w.rows, unit.num_keys, w.width, w.transposed, w.keys_ld);  // K^T, and K stays in rows

  for (std::int64_t b = 0; b < unit.num_blocks; ++b) {
    const QueryBlock& block = unit.blocks[b];
    for (std::int64_t row = 0; row < block.length; row += kQueryTile) {
      const auto count = row + kQueryTile < block.length ? kQueryTile : block.length - row;
      const auto q_offset = (block.first_query + row) * q_stride + unit.head * w.dim;
      unpack_rows(unit.q + q_offset, q_stride, count, w.dim, unit.scale, w.queries);
      unpack_rows(unit.dout + q_offset, q_stride, count, w.dim, 1.0f, w.tile);
      unpack_rows(unit.out_in + q_offset, q_stride, count, w.dim, 1.0f, w.tile2);
      const auto columns = compute_scores(unit, w, block, row, count, w.queries, w.transposed, w.scores);
      compute_scores(unit, w, block, row, count, w.tile, w.transposed2, w.gradients);  // dP = dO V^T
      for (std::int64_t i = 0; i < count; ++i) {
        float* p = w.scores + i * w.scores_ld;
        float* g = w.gradients + i * w.scores_ld;
        const auto seen = block.num_visible + row + i + 1;
        for (auto j = seen; j < columns + kPad; ++j) p[j] = -__builtin_inff(), g[j] = 0;
        Vec dots = {};
        for (std::int64_t d = 0; d < w.width; d += kLanes) {
          dots += load(w.tile + i * w.width + d) * load(w.tile2 + i * w.width + d);
        }
        float delta = 0;  // rowsum(dO O)
        for (int l = 0; l < kLanes; ++l) delta += dots[l];
        const float lse = unit.lse[unit.head * unit.num_queries + block.first_query + row + i];
        for (std::int64_t j = 0; j < columns; j += kLanes) {
          const Vec probability = exp_negative(load(p + j) - lse);
          store(p + j, probability);
          store(g + j, probability * (load(g + j) - delta));
        }
      }
      bool accumulate = false;
      for_each_run(unit, block, row + count, [&](std::int64_t first, std::int64_t length, std::int64_t column) {
        gemm(count, w.width, length, {w.gradients + column, w.scores_ld, 1}, w.rows + first * w.width, w.width, w.tile3,
             w.width, accumulate);
        gemm(length, w.width, count, {w.gradients + column, 1, w.scores_ld}, w.queries, w.width,
             unit.dk + first * w.width, w.width, true);
        gemm(length, w.width, count, {w.scores + column, 1, w.scores_ld}, w.tile, w.width, unit.dv + first * w.width,
             w.width, true);
        accumulate = true;
      });
      for (std::int64_t i = 0; i < count; ++i) {
        T* dq = unit.dq + q_offset + i * q_stride;
        for (std::int64_t d = 0; d < w.dim; ++d) from_float(w.tile3[i * w.width + d] * unit.scale, dq[d]);
      }
    }
  }
}

/// One block of few queries against a KV cache: no unpacking, each key row is read once for all query heads of the
/// group. unit.head is the key head; spans and first_key are absolute.
template <typename T>
void attention_decode(const AttentionUnit<T>& unit) {
  const QueryBlock& block = unit.blocks[0];
  const auto dim = unit.head_dim, width = padded(dim);
  const auto group = unit.num_heads / unit.num_kv_heads;
  const auto kv_stride = unit.num_kv_heads * dim, q_stride = unit.num_heads * dim;
  const auto most = padded(block.num_visible + block.length);
  float* queries = unit.scratch;               // [group, width]
  float* sums = queries + group * width;       // [group, width]
  float* row_values = sums + group * width;    // [width]
  float* scores = row_values + width;          // [group, most]
  for (std::int64_t i = 0; i < block.length; ++i) {
    const auto q_offset = (block.first_query + i) * q_stride + unit.head * group * dim;
    unpack_rows(unit.q + q_offset, dim, group, dim, unit.scale, queries);
    const auto seen = block.num_visible + i + 1;
    const auto each_key = [&](const T* base, auto&& f) {
      std::int64_t column = 0;
      for (std::int64_t s = 0; s <= block.num_spans; ++s) {
        const KeySpan span = s < block.num_spans ? block.spans[s] : KeySpan{block.first_key, i + 1};
        const T* source = base + span.first * kv_stride + unit.head * dim;
        for (std::int64_t j = 0; j < span.length; ++j, source += kv_stride) {
          unpack_rows(source, dim, 1, dim, 1.0f, row_values);
          f(column++);
        }
      }
    };
    each_key(unit.k, [&](std::int64_t column) {
      for (std::int64_t g = 0; g < group; ++g) {
        Vec dots = {};
        for (std::int64_t d = 0; d < width; d += kLanes) dots += load(queries + g * width + d) * load(row_values + d);
        float score = 0;
        for (int l = 0; l < kLanes; ++l) score += dots[l];
        scores[g * most + column] = score;
      }
    });
    for (std::int64_t g = 0; g < group; ++g) {
      float* p = scores + g * most;
      float highest = p[0];
      for (std::int64_t j = 1; j < seen; ++j) highest = p[j] > highest ? p[j] : highest;
      for (auto j = seen; j < padded(seen); ++j) p[j] = -__builtin_inff();
      Vec total = {};
      for (std::int64_t j = 0; j < seen; j += kLanes) {
        const Vec e = exp_negative(load(p + j) - highest);
        store(p + j, e);
        total += e;
      }
      float sum = 0;
      for (int l = 0; l < kLanes; ++l) sum += total[l];
      const float inverse = 1.0f / sum;
      for (std::int64_t j = 0; j < seen; ++j) p[j] *= inverse;
    }
    for (std::int64_t d = 0; d < group * width; ++d) sums[d] = 0;
    each_key(unit.v, [&](std::int64_t column) {
      for (std::int64_t g = 0; g < group; ++g) {
        const Vec weight = splat(scores[g * most + column]);
        for (std::int64_t d = 0; d < width; d += kLanes) {
          store(sums + g * width + d, load(sums + g * width + d) + weight * load(row_values + d));
        }
      }
    });
    for (std::int64_t g = 0; g < group; ++g) {
      for (std::int64_t d = 0; d < dim; ++d) from_float(sums[g * width + d], unit.out[q_offset + g * dim + d]);
    }
  }
}

template void attention_forward<float>(const AttentionUnit<float>&);
template void attention_forward<Bf16>(const AttentionUnit<Bf16>&);
template void attention_backward<float>(const AttentionUnit<float>&);
template void attention_backward<Bf16>(const AttentionUnit<Bf16>&);
template void attention_decode<float>(const AttentionUnit<float>&);
template void attention_decode<Bf16>(const AttentionUnit<Bf16>&);

}  // namespace quiver::nn::kernel::QUIVER_ISA
