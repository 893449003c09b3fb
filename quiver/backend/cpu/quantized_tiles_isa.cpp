// Products of many rows by quantised panels with AMX's tiles of int8 (quantized_product_isa.h). Compiled for CPUs that have AMX.
//
// A tile of activations has 16 rows and the 32 columns of a block, as signed bytes: q = 256 hi + lo. Two tiles, hi and lo, are multiplied
// by one tile of weights; their integer sums leave the tiles through memory, and are scaled and added up in registers. While the tiles of
// one block are multiplied, the sums of the block before are added up.
#include <immintrin.h>

#include "quiver/backend/cpu/quantized_product_isa.h"
#include "quiver/backend/cpu/quantized_vectors_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

constexpr std::int64_t kTileBytes = 512;  // of a tile of bytes: 16 rows of 32 columns, or 8 rows of 4 columns of 16 outputs
constexpr std::int64_t kSumBytes = 1024;  // of a tile of sums

enum Tile { kWeights, kHighRows, kLowRows, kHighSums, kLowSums, kLastRows, kLastHighSums, kLastLowSums };

/// What LDTILECFG reads (Intel's manual, volume 1, 18.4).
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

/// For whole tiles, and for a last one of `last_rows` rows.
QUIVER_INLINE void set_shapes(std::int64_t last_rows) {
  TileShapes shapes;
  const auto set = [&](Tile tile, std::int64_t rows, int bytes) {
    shapes.rows[tile] = static_cast<std::uint8_t>(rows);
    shapes.row_bytes[tile] = static_cast<std::uint16_t>(bytes);
  };
  set(kWeights, 8, 64);
  set(kHighRows, kTileRows, 32);
  set(kLowRows, kTileRows, 32);
  set(kHighSums, kTileRows, 64);
  set(kLowSums, kTileRows, 64);
  if (last_rows > 0) {
    set(kLastRows, last_rows, 32);
    set(kLastHighSums, last_rows, 64);
    set(kLastLowSums, last_rows, 64);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
}

// GCC's own functions do not say which memory they read and write. All of it is too much: sums would leave their registers.
struct TileBytes {
  std::uint8_t at[kTileBytes];
};
struct SumBytes {
  std::uint8_t at[kSumBytes];
};
template <int kTile>
QUIVER_INLINE void load_tile(const void* from, std::int64_t row_bytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(kTile), "m"(*static_cast<const TileBytes*>(from)));
}
template <int kTile>
QUIVER_INLINE void store_tile(void* to) {
  __asm__ volatile("tilestored %%tmm%c3, (%1,%2,1)" : "=m"(*static_cast<SumBytes*>(to)) : "r"(to), "r"(std::int64_t{64}), "i"(kTile));
}
template <int kSums, int kRows>
QUIVER_INLINE void multiply_tiles() {
  __asm__ volatile("tilezero %%tmm%c0\n\ttdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kWeights));
}

typedef std::uint8_t UnsignedBytes __attribute__((vector_size(64), aligned(1), may_alias));
typedef std::int8_t SomeBytes __attribute__((vector_size(16), aligned(1), may_alias));

/// The weights of a block less their offset, as a tile: four columns of each of the 16 outputs side by side.
template <BlockFormat kFormat>
QUIVER_INLINE void unpack_block(const std::uint8_t* w, std::uint8_t* tile) {
  const auto put = [&](int row, UnsignedBytes bytes) QUIVER_INLINE_LAMBDA { *reinterpret_cast<UnsignedBytes*>(tile + 64 * row) = bytes; };
  constexpr std::uint8_t kOffset = kFormat == BlockFormat::kQ4_0 ? 8 : 0;
  for (int j = 0; j < (kFormat == BlockFormat::kQ8_0 ? 8 : 4); ++j) {
    const auto bytes = *reinterpret_cast<const UnsignedBytes*>(w + 64 * j);
    if constexpr (kFormat == BlockFormat::kQ8_0) {
      put(j, bytes ^ 128);
    } else {
      put(2 * j, (bytes & 15) - kOffset);
      put(2 * j + 1, (bytes >> 4) - kOffset);
    }
  }
}

/// The sums of a block's tiles.
struct alignas(64) Sums {
  std::int32_t high[16 * 16], low[16 * 16];
};

// Sums of activations lie as float32 in the places of integers.
QUIVER_INLINE float as_float(std::int32_t bits) { return __builtin_bit_cast(float, bits); }
QUIVER_INLINE std::int32_t as_bits(std::int32_t sum) { return __builtin_bit_cast(std::int32_t, static_cast<float>(sum)); }

QUIVER_INLINE IntVec load_ints(const std::int32_t* p) { return __builtin_bit_cast(IntVec, _mm512_load_si512(p)); }

/// 32 integers q as bytes, q = 256 hi + lo, in the panels' order of columns.
QUIVER_INLINE void split_row(const std::int16_t* q, std::int8_t* high, std::int8_t* low) {
  for (int k = 0; k < kBlockWidth; k += kLanes) {
    const Shorts values = *reinterpret_cast<const Shorts*>(q + k);  // |q| <= 32639, so that + 128 does not overflow
    const auto put = [&](std::int8_t* to, Shorts of) QUIVER_INLINE_LAMBDA {
      const auto bytes = __builtin_convertvector(of, SomeBytes);  // the lowest ones
      *reinterpret_cast<SomeBytes*>(to + k) = __builtin_shuffle(bytes, SomeBytes{0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15});
    };
    put(high, (values + 128) >> 8);
    put(low, values);
  }
}

/// A panel of weights: as it is stored, for its scales, and its blocks as tiles.
struct Panel {
  std::int64_t index;
  const std::uint8_t* blocks;
  const std::uint8_t* tiles;
};

/// The scales of a block of a tile's rows and of a panel, and what depends on them.
template <BlockFormat kFormat>
struct BlockScales {
  Vec scale, minimum;
  const float* of_rows;
  const std::int32_t* row_sums;

  QUIVER_INLINE BlockScales at(const QuantizedProduct& p, const Panel& panel, std::int64_t row, std::int64_t count, std::int64_t b) {
    constexpr auto kBytes = panel_block_bytes(kFormat);
    constexpr bool kHasMinimum = kFormat == BlockFormat::kQ4_1;
    const auto* scales = panel.blocks + (b + 1) * kBytes - (kHasMinimum ? 64 : 32);
    const auto first = row * (p.depth / kBlockWidth) + b * count;
    return {halves(scales), kHasMinimum ? halves(scales + 32) : Vec{}, p.x.scales + first, p.x.sums + first};
  }

  /// The total of row i and the block's sums of it.
  __attribute__((always_inline)) Vec add(int i, const Sums& sums, Vec total) const {
    const IntVec high = load_ints(sums.high + 16 * i), low = load_ints(sums.low + 16 * i);
    total = fused(to_floats((high << 8) + low), scale * of_rows[i], total);
    if constexpr (kFormat == BlockFormat::kQ4_1) total = fused(splat(as_float(row_sums[i])), minimum * of_rows[i], total);
    return total;
  }
};

/// The sums of block b of a panel and of `count` rows from x on, by tiles of these numbers.
template <Tile kHigh, Tile kLow, Tile kOfHigh, Tile kOfLow>
QUIVER_INLINE void multiply_block(const Panel& panel, const std::int8_t* x, std::int64_t count, std::int64_t b, Sums& sums) {
  const auto* rows = x + b * count * 2 * kBlockWidth;
  load_tile<kWeights>(panel.tiles + b * kTileBytes, 64);
  load_tile<kHigh>(rows, kBlockWidth);
  multiply_tiles<kOfHigh, kHigh>();
  store_tile<kOfHigh>(sums.high);
  load_tile<kLow>(rows + count * kBlockWidth, kBlockWidth);
  multiply_tiles<kOfLow, kLow>();
  store_tile<kOfLow>(sums.low);
}

/// y of a tile of rows from `row` on: of 16, with totals in registers, or of the `count` last rows.
template <BlockFormat kFormat, bool kIsLast>
void multiply_tile(const QuantizedProduct& p, const Panel& panel, std::int64_t row, std::int64_t count) {
  const auto num_blocks = p.depth / kBlockWidth;
  const auto* x = reinterpret_cast<const std::int8_t*>(p.x.values + row * p.depth);
  const auto for_rows = [&](const auto& f) QUIVER_INLINE_LAMBDA {
    if constexpr (kIsLast) {
      for (int i = 0; i < count; ++i) f(i);
    } else {
      repeat<kTileRows>(f);
    }
  };
  Sums sums[2];
  alignas(64) Vec total[kTileRows] = {};
  for (std::int64_t b = 0; b <= num_blocks; ++b) {
    if (b < num_blocks) {
      if constexpr (kIsLast) {
        multiply_block<kLastRows, kLastRows, kLastHighSums, kLastLowSums>(panel, x, count, b, sums[b % 2]);
      } else {
        multiply_block<kHighRows, kLowRows, kHighSums, kLowSums>(panel, x, kTileRows, b, sums[b % 2]);
      }
    }
    if (b == 0) continue;
    const auto scales = BlockScales<kFormat>::at(p, panel, row, count, b - 1);
    for_rows([&](auto i) QUIVER_INLINE_LAMBDA { total[i] = scales.add(i, sums[(b - 1) % 2], total[i]); });
  }
  for_rows([&](auto i) QUIVER_INLINE_LAMBDA { finish_row(p, panel.index, row + i, 0, total[i]); });
}

template <BlockFormat kFormat>
void multiply(std::int64_t begin, std::int64_t end, const QuantizedProduct& p) {
  constexpr auto kBytes = panel_block_bytes(kFormat);
  alignas(64) std::uint8_t tiles[kMostTileDepth * kPanelRows];
  const auto num_blocks = p.depth / kBlockWidth;
  const auto whole = p.num_rows - p.num_rows % kTileRows;
  set_shapes(p.num_rows - whole);
  for (auto index = begin; index < end; ++index) {
    const auto* blocks = p.panels + index * num_blocks * kBytes;
    for (std::int64_t b = 0; b < num_blocks; ++b) {
      for (std::int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(blocks + (b + num_blocks) * kBytes + line);
      unpack_block<kFormat>(blocks + b * kBytes, tiles + b * kTileBytes);
    }
    const Panel panel{index, blocks, tiles};
    for (std::int64_t row = 0; row < whole; row += kTileRows) multiply_tile<kFormat, false>(p, panel, row, kTileRows);
    if (whole < p.num_rows) multiply_tile<kFormat, true>(p, panel, whole, p.num_rows - whole);
  }
  __asm__ volatile("tilerelease");
}

}  // namespace

void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const QuantizedRows& rows) {
  const auto num_blocks = depth / kBlockWidth, whole = rows.num_in_tiles - rows.num_in_tiles % kTileRows;
  for (auto row = begin; row < end; ++row) {
    const auto first = row - row % kTileRows, i = row - first, count = first < whole ? kTileRows : rows.num_in_tiles - whole;
    for (std::int64_t b = 0; b < num_blocks; ++b) {
      std::int16_t values[kBlockWidth];
      const auto at = first * num_blocks + b * count + i;
      quantize_block(x + row * depth + b * kBlockWidth, values, rows.scales[at], rows.sums[at]);
      rows.sums[at] = as_bits(rows.sums[at]);
      auto* high = reinterpret_cast<std::int8_t*>(rows.values + first * depth) + b * count * 64 + i * 32;
      split_row(values, high, high + count * 32);
    }
  }
}

void quantized_product(std::int64_t begin, std::int64_t end, const QuantizedProduct& product) {
  switch (product.format) {
    case BlockFormat::kQ8_0: return multiply<BlockFormat::kQ8_0>(begin, end, product);
    case BlockFormat::kQ4_0: return multiply<BlockFormat::kQ4_0>(begin, end, product);
    case BlockFormat::kQ4_1: return multiply<BlockFormat::kQ4_1>(begin, end, product);
  }
}

}  // namespace quiver::backend::kernel::QUIVER_ISA
