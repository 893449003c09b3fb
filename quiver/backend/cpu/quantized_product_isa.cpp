// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// A tile of rows of x passes by a panel, whose blocks are read from memory once and from the first-level cache for further tiles. The
// tile's integer sums of one block and its sums of all blocks stay in registers.
#include "quiver/backend/cpu/quantized_product_isa.h"

#include "quiver/backend/cpu/quantized_vectors_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

/// Pairs of 16-bit numbers in the lanes of a vector.
typedef std::uint16_t Words __attribute__((vector_size(kLanes * 4), aligned(2), may_alias));

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
#elif defined(__AVX2__)
constexpr int kMostRows = 4;
QUIVER_INLINE IntVec multiply_add(IntVec sum, Words w, IntVec x) {
  return kept(sum + __builtin_bit_cast(IntVec, _mm256_madd_epi16(__builtin_bit_cast(__m256i, w), __builtin_bit_cast(__m256i, x))));
}
#else
constexpr int kMostRows = 2;
QUIVER_INLINE IntVec multiply_add(IntVec sum, Words w, IntVec x) {
  return kept(sum + __builtin_bit_cast(IntVec, _mm_madd_epi16(__builtin_bit_cast(__m128i, w), __builtin_bit_cast(__m128i, x))));
}
#endif

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
  for (int part = 0; part < kParts; ++part) {
    for (int i = 0; i < kR; ++i) finish_row(p, panel, row + i, part, total[i][part]);
  }
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
