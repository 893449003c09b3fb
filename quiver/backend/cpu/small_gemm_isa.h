// Products of matrices that fit the cache, for kernels that are compiled once per instruction set: C (+)= A B with
// float32 sums, B and the layouts of A packed by the caller. Everything here has internal linkage (see vector_isa.h).
//
// What products are made of is a cell: kDepth consecutive elements along the summed dimension. A matrix of n rows of d
// elements is packed
//
//   across  [n][ceil(d / kDepth)]   for sums over d
//   down    [ceil(n / kDepth)][d]   for sums over n
//
// with d padded to whole vectors.
#pragma once

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

/// Of C held in registers: rows times vectors.
#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

/// One float32 each: across and down are the same.
struct Floats {
  using Cell = float;
  static constexpr int kDepth = 1;
  static inline __attribute__((always_inline)) Vec multiply_add(Vec sum, float left, const float* right) {
    return sum + left * load(right);
  }

  template <typename T>
  static void pack_across(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t dim, Cell* out) {
    const auto width = padded(dim);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t d = dim; d < width; ++d) out[i * width + d] = 0;
      for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
        store_some(out + i * width + d, count, load_some(source + i * stride + d, count));
      });
    }
  }
  /// An across matrix [rows][width], down.
  static void pack_down(const Cell* across, std::int64_t rows, std::int64_t width, Cell* out) {
    for (std::int64_t i = 0; i < rows * width; i += kLanes) store(out + i, load(across + i));
  }
  /// Float32 rows of whole vectors, in place: `out` is for cells that need a place of their own.
  static Cell* round_rows(float* rows, std::int64_t, std::int64_t, std::int64_t, Cell*) { return rows; }
  static Cell* round_down(float* rows, std::int64_t, std::int64_t, std::int64_t, const Cell*, Cell*) { return rows; }
};

#if defined(__AVX512BF16__)
/// Two bfloat16 each, multiplied two at a time.
struct Pairs {
  using Cell = std::uint32_t;
  static constexpr int kDepth = 2;
  static inline __attribute__((always_inline)) Vec multiply_add(Vec sum, Cell left, const Cell* right) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(left)), (__m512bh)_mm512_loadu_si512(right));
  }

  static void pack_across(const Bf16* source, std::int64_t stride, std::int64_t rows, std::int64_t dim, Cell* out) {
    const auto width = padded(dim);
    for (std::int64_t i = 0; i < rows; ++i) {
      auto* row = reinterpret_cast<Bf16*>(out) + i * width;
      const Bf16* from = source + i * stride;
      std::int64_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + d), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + d)));
      }
      for (; d < width; ++d) row[d] = d < dim ? from[d] : Bf16{0};
    }
  }
  /// across: rows of `width` bfloat16. Two rows become one of `width` cells.
  static void pack_down(const Cell* across, std::int64_t rows, std::int64_t width, Cell* out) {
    const auto* in = reinterpret_cast<const std::uint16_t*>(across);
    for (std::int64_t i = 0; i < rows; i += 2) {
      const auto* low = in + i * width;
      Cell* to = out + i / 2 * width;
      if (i + 1 < rows) {
        for (std::int64_t d = 0; d < width; ++d) to[d] = static_cast<Cell>(low[d]) | static_cast<Cell>(low[width + d]) << 16;
      } else {
        for (std::int64_t d = 0; d < width; ++d) to[d] = low[d];
      }
    }
  }
  /// Float32 rows `ld` apart, rounded, in rows of ld bfloat16.
  static Cell* round_rows(const float* rows, std::int64_t count, std::int64_t columns, std::int64_t ld, Cell* out) {
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < columns; j += 2 * kLanes) {
        const auto low = _mm512_loadu_ps(rows + i * ld + j), high = _mm512_loadu_ps(rows + i * ld + j + kLanes);
        _mm512_storeu_si512(reinterpret_cast<Bf16*>(out) + i * ld + j, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
    }
    return out;
  }
  static Cell* round_down(const float*, std::int64_t count, std::int64_t, std::int64_t ld, const Cell* rounded, Cell* out) {
    pack_down(rounded, count, ld, out);
    return out;
  }
};
#endif

template <typename T>
struct CellsOf {
  using Type = Floats;
};
#if defined(__AVX512BF16__)
template <>
struct CellsOf<Bf16> {
  using Type = Pairs;
};
#endif

constexpr std::int64_t cells(std::int64_t n, int depth) { return (n + depth - 1) / depth; }

/// A strided left side: element (i, k) at data[i * row + k * column].
template <typename Cell>
struct Left {
  const Cell* data;
  std::int64_t row, column;
};

template <typename C, int kRows, int kVectors>
QUIVER_INLINE void gemm_tile(std::int64_t depth, Left<typename C::Cell> a, const typename C::Cell* b, std::int64_t ldb, float* c,
                             std::int64_t ldc, bool accumulate) {
  Vec sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) sum[i][j] = accumulate ? load(c + i * ldc + j * kLanes) : Vec{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    for (int i = 0; i < kRows; ++i) {
      const auto left = a.data[i * a.row + k * a.column];
      for (int j = 0; j < kVectors; ++j) sum[i][j] = C::multiply_add(sum[i][j], left, b + k * ldb + j * kLanes);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) store(c + i * ldc + j * kLanes, sum[i][j]);
  }
}

template <typename C, int kVectors>
QUIVER_INLINE void gemm_panel(std::int64_t rows, std::int64_t depth, Left<typename C::Cell> a, const typename C::Cell* b, std::int64_t ldb,
                              float* c, std::int64_t ldc, bool accumulate) {
  std::int64_t i = 0;
  const auto left = [&] { return Left<typename C::Cell>{a.data + i * a.row, a.row, a.column}; };
  for (; i + kTileRows <= rows; i += kTileRows) {
    gemm_tile<C, kTileRows, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate);
  }
  switch (rows - i) {
    case 5: gemm_tile<C, 5, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 4: gemm_tile<C, 4, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 3: gemm_tile<C, 3, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 2: gemm_tile<C, 2, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    case 1: gemm_tile<C, 1, kVectors>(depth, left(), b, ldb, c + i * ldc, ldc, accumulate); break;
    default: break;
  }
}

/// C [rows, columns] (+)= A [rows, depth] B [depth, columns], depth in cells. Works on whole vectors: reads and writes up
/// to padded(columns) columns of every row.
template <typename C>
void gemm(std::int64_t rows, std::int64_t columns, std::int64_t depth, Left<typename C::Cell> a, const typename C::Cell* b,
          std::int64_t ldb, float* c, std::int64_t ldc, bool accumulate) {
  std::int64_t j = 0;
  for (; j + kTileVectors * kLanes <= columns; j += kTileVectors * kLanes) {
    gemm_panel<C, kTileVectors>(rows, depth, a, b + j, ldb, c + j, ldc, accumulate);
  }
  for (; j < columns; j += kLanes) gemm_panel<C, 1>(rows, depth, a, b + j, ldb, c + j, ldc, accumulate);
}

/// kLanes rows of as many cells, transposed: in log2(kLanes) rounds that swap blocks off the diagonal.
template <typename Cell>
QUIVER_INLINE void transpose_square(const Cell* in, std::int64_t in_ld, Cell* out, std::int64_t out_ld) {
  BitsVec rows[kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i] = *reinterpret_cast<const BitsVec*>(in + i * in_ld);
  for (int block = 1; block < kLanes; block *= 2) {
    BitsVec upper, lower;
    for (int l = 0; l < kLanes; ++l) {
      upper[l] = static_cast<std::uint32_t>((l & block) == 0 ? l : kLanes + l - block);
      lower[l] = static_cast<std::uint32_t>((l & block) == 0 ? l + block : kLanes + l);
    }
    for (int i = 0; i < kLanes; ++i) {
      if ((i & block) != 0) continue;
      const BitsVec a = rows[i], b = rows[i + block];
      rows[i] = __builtin_shuffle(a, b, upper);
      rows[i + block] = __builtin_shuffle(a, b, lower);
    }
  }
  for (int i = 0; i < kLanes; ++i) *reinterpret_cast<BitsVec*>(out + i * out_ld) = rows[i];
}

/// across [n][width cells] -> out [width][ld], up to whole squares of rows; what lies beyond n is some number.
template <typename Cell>
void transpose(const Cell* across, std::int64_t n, std::int64_t width, Cell* out, std::int64_t ld) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    std::int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) transpose_square(across + i * width + d, width, out + d * ld + i, ld);
    for (; d < width; ++d) {
      for (std::int64_t j = i; j < i + kLanes && j < n; ++j) out[d * ld + j] = across[j * width + d];
    }
  }
}

}  // namespace
}  // namespace quiver::backend::kernel::QUIVER_ISA
