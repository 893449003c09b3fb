// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// A tile of rows of x passes by a panel, whose blocks are read from memory once and from the first-level cache for further tiles. The
// tile's integer sums of one block and its sums of all blocks stay in registers.
#include "quiver/backend/cpu/quantized_product_isa.h"

#include <immintrin.h>

#include <type_traits>

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

/// Pairs of 16-bit numbers in the lanes of a vector.
typedef std::uint16_t Words __attribute__((vector_size(kLanes * 4), aligned(2), may_alias));
typedef std::int16_t Shorts __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

constexpr int kParts = kPanelRows / kLanes;    // vectors of a panel's rows
constexpr std::int64_t kPrefetchBytes = 2048;  // ahead of a lone tile; the first of several tiles fetches the next panel
constexpr std::int64_t kRowsAtOnce = 16, kPanelsAtOnce = 8;

/// Keeps a sum in its register. GCC 12 would compute all products of a block first, put them on the stack and add them up in a tree.
QUIVER_INLINE IntVec kept(IntVec sum) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(sum));
#else
  __asm__("" : "+x"(sum));
#endif
  return sum;
}

// Each instruction set's own instructions.
#if defined(__AVX512F__)
constexpr int kMostRows = 8;
QUIVER_INLINE IntVec multiply_add(IntVec sum, Words w, IntVec x) {  // pairs
  const auto s = __builtin_bit_cast(__m512i, sum), a = __builtin_bit_cast(__m512i, w), b = __builtin_bit_cast(__m512i, x);
#if defined(__AVX512VNNI__)
  return __builtin_bit_cast(IntVec, _mm512_dpwssd_epi32(s, a, b));
#else
  return kept(__builtin_bit_cast(IntVec, _mm512_add_epi32(s, _mm512_madd_epi16(a, b))));
#endif
}
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {
  return __builtin_bit_cast(Vec,
                            _mm512_fmadd_ps(__builtin_bit_cast(__m512, a), __builtin_bit_cast(__m512, b), __builtin_bit_cast(__m512, c)));
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  return __builtin_bit_cast(Vec, _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm512_maskz_cvtps_epi32(0xffff, __builtin_bit_cast(__m512, v))); }
#elif defined(__AVX2__)
constexpr int kMostRows = 4;
QUIVER_INLINE IntVec multiply_add(IntVec sum, Words w, IntVec x) {
  return kept(sum + __builtin_bit_cast(IntVec, _mm256_madd_epi16(__builtin_bit_cast(__m256i, w), __builtin_bit_cast(__m256i, x))));
}
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {
  return __builtin_bit_cast(Vec,
                            _mm256_fmadd_ps(__builtin_bit_cast(__m256, a), __builtin_bit_cast(__m256, b), __builtin_bit_cast(__m256, c)));
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  return __builtin_bit_cast(Vec, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm256_cvtps_epi32(__builtin_bit_cast(__m256, v))); }
#else
constexpr int kMostRows = 2;
QUIVER_INLINE IntVec multiply_add(IntVec sum, Words w, IntVec x) {
  return kept(sum + __builtin_bit_cast(IntVec, _mm_madd_epi16(__builtin_bit_cast(__m128i, w), __builtin_bit_cast(__m128i, x))));
}
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {  // by the C library, which rounds once, too
  for (int l = 0; l < kLanes; ++l) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
  return c;
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  Vec result;
  for (int l = 0; l < kLanes; ++l) {
    const auto bits = static_cast<std::uint32_t>(p[2 * l] | p[2 * l + 1] << 8);
    const bool is_finite = (bits & 0x7c00u) != 0x7c00u;
    const float magnitude = __builtin_bit_cast(float, (bits & 0x7fffu) << 13) * 0x1p112f;  // subnormal ones, too
    const auto wide = is_finite ? __builtin_bit_cast(std::uint32_t, magnitude) : (bits & 0x7fffu) << 13 | 0x7f800000u;
    result[l] = __builtin_bit_cast(float, wide | (bits & 0x8000u) << 16);
  }
  return result;
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm_cvtps_epi32(__builtin_bit_cast(__m128, v))); }
#endif

QUIVER_INLINE Vec to_floats(IntVec v) { return __builtin_convertvector(v, Vec); }
QUIVER_INLINE IntVec splat_int(int x) { return x - IntVec{}; }
/// The pair of activations at p in every lane.
QUIVER_INLINE IntVec splat_pair(const std::int16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return splat_int(pair);
}

/// What distinguishes the formats: the bytes of weights, the offset of stored weights, and how a vector falls into pairs.
template <BlockFormat kFormat>
struct Format {
  static constexpr bool kIsByte = kFormat == BlockFormat::kQ8_0;
  static constexpr int kVectors = kIsByte ? 8 : 4;  // of 64 bytes
  static constexpr int kPieces = kIsByte ? 2 : 4;   // of a vector
  static constexpr int kOffset = kIsByte ? 128 : kFormat == BlockFormat::kQ4_0 ? 8 : 0;
  static constexpr bool kHasMinimum = kFormat == BlockFormat::kQ4_1;

  /// The pairs of columns pair_column(j, piece) and the next.
  template <int kPiece>
  QUIVER_INLINE Words piece(Words v) {
    if constexpr (kIsByte) return kPiece == 0 ? v & 255 : v >> 8;
    if constexpr (kPiece == 0) return v & 15;
    if constexpr (kPiece == 3) return v >> 12;
    return v >> (4 * kPiece) & 15;
  }
  static constexpr std::int64_t pair_column(int j, int piece) {
    if (kIsByte) return 4 * j + 2 * piece;
    constexpr int kColumns[] = {0, 4, 2, 6};
    return 8 * j + kColumns[piece];
  }
};

/// Calls f(0), ..., f(kCount - 1) with constants. GCC 12 keeps an array in registers only where its indices are constants before loops are
/// unrolled.
template <int kCount, int kFrom = 0, typename F>
QUIVER_INLINE void repeat(const F& f) {
  if constexpr (kFrom < kCount) {
    f(std::integral_constant<int, kFrom>());
    repeat<kCount, kFrom + 1>(f);
  }
}
#define QUIVER_INLINE_LAMBDA __attribute__((always_inline))

/// Adds the products of one block to the integer sums of kR rows.
template <typename F, int kR>
QUIVER_INLINE void add_block(const std::uint8_t* w, const std::int16_t* const (&x)[kR], IntVec (&sum)[kR][kParts]) {
  repeat<F::kVectors>([&](auto j) QUIVER_INLINE_LAMBDA {
    Words v[kParts];
    repeat<kParts>([&](auto part) QUIVER_INLINE_LAMBDA { v[part] = *reinterpret_cast<const Words*>(w + 64 * j + 4 * kLanes * part); });
    repeat<F::kPieces>([&](auto piece) QUIVER_INLINE_LAMBDA {
      Words weights[kParts];
      repeat<kParts>([&](auto part) QUIVER_INLINE_LAMBDA { weights[part] = F::template piece<piece>(v[part]); });
      repeat<kR>([&](auto i) QUIVER_INLINE_LAMBDA {
        const IntVec pair = splat_pair(x[i] + F::pair_column(j, piece));
        repeat<kParts>([&](auto part) QUIVER_INLINE_LAMBDA { sum[i][part] = multiply_add(sum[i][part], weights[part], pair); });
      });
    });
  });
}

QUIVER_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// y of kR rows from `row` on and the columns of a panel.
template <typename F, int kR>
QUIVER_INLINE void finish_tile(const QuantizedProduct& p, std::int64_t panel, std::int64_t row, const Vec (&total)[kR][kParts]) {
  for (int part = 0; part < kParts; ++part) {
    const auto column = panel * kPanelRows + part * kLanes, left = p.num_outputs - column;
    if (left <= 0) return;
    const auto count = smaller(left, kLanes);
    const Vec bias = p.bias != nullptr ? load_some(p.bias + column, count) : Vec{};
    for (int i = 0; i < kR; ++i) {
      Vec y = total[i][part];
      if (p.bias != nullptr) y += bias;
      if (p.onto != nullptr) y += load_some(p.onto + (row + i) * p.onto_stride + column, count);
      store_some(p.y + (row + i) * p.y_stride + column, count, y);
    }
  }
}

/// `ahead`: how many bytes from those that are read to those that are fetched from memory meanwhile.
template <typename F, BlockFormat kFormat, int kR>
void multiply_tile(const QuantizedProduct& p, std::int64_t panel, std::int64_t row, std::int64_t ahead) {
  constexpr auto kBytes = panel_block_bytes(kFormat);
  const auto num_blocks = p.depth / kBlockWidth;
  const auto* w = p.panels + panel * num_blocks * kBytes;
  const std::int16_t* x[kR];
  repeat<kR>([&](auto i) QUIVER_INLINE_LAMBDA { x[i] = p.x.values + (row + i) * p.depth; });
  const auto* scales = p.x.scales + row * num_blocks;
  const auto* sums = p.x.sums + row * num_blocks;
  Vec total[kR][kParts] = {};
  for (std::int64_t b = 0; b < num_blocks; ++b, w += kBytes) {
    for (std::int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(w + ahead + line);
    IntVec sum[kR][kParts];
    repeat<kR>([&](auto i) QUIVER_INLINE_LAMBDA {
      const IntVec start = splat_int(-F::kOffset * sums[i * num_blocks + b]);
      repeat<kParts>([&](auto part) QUIVER_INLINE_LAMBDA { sum[i][part] = start; });
    });
    add_block<F, kR>(w, x, sum);
    repeat<kR>([&](auto i) QUIVER_INLINE_LAMBDA {
      x[i] += kBlockWidth;
      __asm__("" : "+r"(x[i]));  // or GCC keeps an address for every pair, on the stack
    });
    repeat<kParts>([&](auto part) QUIVER_INLINE_LAMBDA {
      const auto* of_rows = w + 64 * F::kVectors + 2 * kLanes * part;
      const Vec scale = halves(of_rows), minimum = F::kHasMinimum ? halves(of_rows + 2 * kPanelRows) : Vec{};
      repeat<kR>([&](auto i) QUIVER_INLINE_LAMBDA {
        const auto at = i * num_blocks + b;
        total[i][part] = fused(to_floats(sum[i][part]), scale * scales[at], total[i][part]);
        if constexpr (F::kHasMinimum) {
          total[i][part] = fused(splat(static_cast<float>(sums[at])), minimum * scales[at], total[i][part]);
        }
      });
    });
  }
  finish_tile<F, kR>(p, panel, row, total);
}

/// Rows [row, end), in tiles of kR and then of fewer.
template <typename F, BlockFormat kFormat, int kR>
QUIVER_INLINE void multiply_rows(const QuantizedProduct& p, std::int64_t panel, std::int64_t row, std::int64_t end, std::int64_t ahead) {
  for (; row + kR <= end; row += kR) {
    multiply_tile<F, kFormat, kR>(p, panel, row, ahead);
    ahead = 0;  // the next panel is fetched once
  }
  if constexpr (kR > 1) {
    if (row < end) multiply_rows<F, kFormat, kR / 2>(p, panel, row, end, ahead);
  }
}

/// Blocks of rows of x stay in the first-level cache while some panels pass by, which stay in the second-level cache for all blocks of
/// rows.
template <BlockFormat kFormat>
void multiply(std::int64_t begin, std::int64_t end, const QuantizedProduct& p) {
  const auto panel_bytes = p.depth / kBlockWidth * panel_block_bytes(kFormat);
  for (auto first = begin; first < end; first += kPanelsAtOnce) {
    const auto last = smaller(first + kPanelsAtOnce, end);
    for (std::int64_t row = 0; row < p.num_rows; row += kRowsAtOnce) {
      const auto row_end = smaller(row + kRowsAtOnce, p.num_rows);
      const auto ahead = row > 0 ? 0 : row_end > kMostRows ? panel_bytes : kPrefetchBytes;  // later blocks of rows find the panels
      for (auto panel = first; panel < last; ++panel) multiply_rows<Format<kFormat>, kFormat, kMostRows>(p, panel, row, row_end, ahead);
    }
  }
}

/// A vector in fours. GCC 12 makes slow code of shuffles of whole vectors.
typedef int Quad __attribute__((vector_size(16)));
struct Quads {
  Quad at[kLanes / 4];
};
QUIVER_INLINE int largest_lane(IntVec v) {
  const auto quads = __builtin_bit_cast(Quads, v);
  Quad most = quads.at[0];
  for (int i = 1; i < kLanes / 4; ++i) most = most > quads.at[i] ? most : quads.at[i];
  const int a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
  return a > b ? a : b;
}
QUIVER_INLINE int sum_of_lanes(IntVec v) {
  const auto quads = __builtin_bit_cast(Quads, v);
  Quad sum = quads.at[0];
  for (int i = 1; i < kLanes / 4; ++i) sum += quads.at[i];
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

QUIVER_INLINE void quantize_block(const float* x, std::int16_t* values, float& scale, std::int32_t& sum) {
  constexpr int kVectors = kBlockWidth / kLanes;
  IntVec largest = {};  // magnitudes order as their bits do, with infinity and NaN on top
  for (int j = 0; j < kVectors; ++j) {
    const IntVec magnitude = __builtin_bit_cast(IntVec, load(x + j * kLanes)) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  const int bits = largest_lane(largest);
  const float most = __builtin_bit_cast(float, bits);
  const bool is_finite = bits < 0x7f800000;
  if (!is_finite || most < kSmallestActivation) {
    for (int k = 0; k < kBlockWidth; ++k) values[k] = 0;
    scale = is_finite ? 0.0f : __builtin_nanf("");
    sum = 0;
    return;
  }
  const float inverse = kLargestActivation / most;
  IntVec total = {};
  for (int j = 0; j < kVectors; ++j) {
    const IntVec q = rounded(load(x + j * kLanes) * inverse);
    total += q;
    *reinterpret_cast<Shorts*>(values + j * kLanes) = __builtin_convertvector(q, Shorts);
  }
  scale = most / kLargestActivation;
  sum = sum_of_lanes(total);
}

/// The weights of one column of a block, [16].
template <typename F>
QUIVER_INLINE void dequantize_column(const std::uint8_t* w, int column, const float* scale, const float* minimum, float* out,
                                     std::int64_t depth) {
  constexpr int kByteOf[] = {0, 2, 1, 3};
  const int group = F::kIsByte ? column / 4 : column / 8;
  const int shift = !F::kIsByte && column % 8 >= 4 ? 4 : 0, mask = F::kIsByte ? 255 : 15;
  for (int r = 0; r < kPanelRows; ++r) {
    const int stored = w[64 * group + 4 * r + kByteOf[column % 4]] >> shift & mask;
    out[r * depth + column] = __builtin_fmaf(scale[r], static_cast<float>(stored - F::kOffset), F::kHasMinimum ? minimum[r] : 0.0f);
  }
}

template <BlockFormat kFormat>
void dequantize(std::int64_t num_blocks, const std::uint8_t* w, float* out) {
  using F = Format<kFormat>;
  for (std::int64_t b = 0; b < num_blocks; ++b, w += panel_block_bytes(kFormat), out += kBlockWidth) {
    float scale[kPanelRows], minimum[kPanelRows] = {};
    for (int part = 0; part < kParts; ++part) {
      const auto* of_rows = w + 64 * F::kVectors + 2 * kLanes * part;
      store(scale + part * kLanes, halves(of_rows));
      if (F::kHasMinimum) store(minimum + part * kLanes, halves(of_rows + 2 * kPanelRows));
    }
    for (int column = 0; column < kBlockWidth; ++column) {
      dequantize_column<F>(w, column, scale, minimum, out, num_blocks * kBlockWidth);
    }
  }
}

}  // namespace

void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const QuantizedRows& rows) {
  const auto num_blocks = depth / kBlockWidth;
  for (auto block = begin * num_blocks; block < end * num_blocks; ++block) {
    quantize_block(x + block * kBlockWidth, rows.values + block * kBlockWidth, rows.scales[block], rows.sums[block]);
  }
}

void quantized_product(std::int64_t begin, std::int64_t end, const QuantizedProduct& product) {
  switch (product.format) {
    case BlockFormat::kQ8_0: return multiply<BlockFormat::kQ8_0>(begin, end, product);
    case BlockFormat::kQ4_0: return multiply<BlockFormat::kQ4_0>(begin, end, product);
    case BlockFormat::kQ4_1: return multiply<BlockFormat::kQ4_1>(begin, end, product);
  }
}

void dequantize_panels(std::int64_t begin, std::int64_t end, std::int64_t depth, BlockFormat format, const std::uint8_t* panels,
                       float* out) {
  const auto num_blocks = depth / kBlockWidth;
  for (auto panel = begin; panel < end; ++panel, out += kPanelRows * depth) {
    const auto* w = panels + panel * num_blocks * panel_block_bytes(format);
    switch (format) {
      case BlockFormat::kQ8_0: dequantize<BlockFormat::kQ8_0>(num_blocks, w, out); break;
      case BlockFormat::kQ4_0: dequantize<BlockFormat::kQ4_0>(num_blocks, w, out); break;
      case BlockFormat::kQ4_1: dequantize<BlockFormat::kQ4_1>(num_blocks, w, out); break;
    }
  }
}

}  // namespace quiver::backend::kernel::QUIVER_ISA
