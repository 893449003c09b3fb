// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// A tile of kRows by kVectors vectors of y keeps its sums in registers while k runs over a block of the depth. A block of rows of x, as
// deep as that, stays in the second-level cache while all panels pass by; a panel's block is read from there once per tile.
#include "quiver/backend/cpu/packed_product_isa.h"

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

// The sums, a vector of each of the panel's parts and one element of x fill the registers: 32 with AVX-512, else 16.
#if defined(__AVX512F__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 3;
constexpr std::int64_t kWidth = kVectors * kLanes;
constexpr std::int64_t kMostDepth = 768;  // of a block: with kMostRows 384 KiB of x
constexpr std::int64_t kMostRows = 128;

QUIVER_INLINE std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
QUIVER_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// Where a tile's sums begin and end: `from` and `to` are rows `ld` apart; null begins with the bias, or 0.
struct TileSums {
  const float* from;
  const float* bias;
  float* to;
  std::int64_t ld;
  std::int64_t columns;  // kWidth, but for the last panel
};

/// Of the j-th vector of a tile, how many columns there are.
QUIVER_INLINE std::int64_t columns_of(const TileSums& sums, int j) {
  const auto left = sums.columns - j * kLanes;
  return left < 0 ? 0 : smaller(left, kLanes);
}

template <int kR, bool kWhole>
QUIVER_INLINE void multiply_tile(std::int64_t depth, const float* x, std::int64_t ldx, const float* panel, const TileSums& sums) {
  const auto read = [&](const float* p, int j) { return kWhole ? load(p + j * kLanes) : load_some(p + j * kLanes, columns_of(sums, j)); };
  Vec sum[kR][kVectors];
  for (int j = 0; j < kVectors; ++j) {
    const Vec bias = sums.bias != nullptr ? read(sums.bias, j) : Vec{};
    for (int i = 0; i < kR; ++i) sum[i][j] = sums.from != nullptr ? read(sums.from + i * sums.ld, j) + bias : bias;
  }
#pragma GCC unroll 4
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = load(panel + k * kWidth + j * kLanes);
    for (int i = 0; i < kR; ++i) {
      const float left = x[i * ldx + k];
      for (int j = 0; j < kVectors; ++j) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < kR; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      float* to = sums.to + i * sums.ld + j * kLanes;
      kWhole ? store(to, sum[i][j]) : store_some(to, columns_of(sums, j), sum[i][j]);
    }
  }
}

template <int kR, bool kWhole>
void multiply_rows(std::int64_t rows, std::int64_t depth, const float* x, std::int64_t ldx, const float* panel, TileSums sums) {
  std::int64_t i = 0;
  for (; i + kR <= rows; i += kR) {
    multiply_tile<kR, kWhole>(depth, x + i * ldx, ldx, panel, sums);
    if (sums.from != nullptr) sums.from += kR * sums.ld;
    sums.to += kR * sums.ld;
  }
  if constexpr (kR > 1) {
    if (i < rows) multiply_rows<kR / 2, kWhole>(rows - i, depth, x + i * ldx, ldx, panel, sums);
  }
}

}  // namespace

std::int64_t panel_width() { return kWidth; }

void pack_panels(std::int64_t begin, std::int64_t end, std::int64_t num_outputs, std::int64_t depth, const float* w,
                 std::int64_t row_stride, std::int64_t column_stride, float* panels) {
  for (auto p = begin; p < end; ++p) {
    const auto columns = smaller(kWidth, num_outputs - p * kWidth);
    for (std::int64_t k = 0; k < depth; ++k) {
      float* to = panels + (p * depth + k) * kWidth;
      for (std::int64_t j = 0; j < kWidth; ++j) to[j] = j < columns ? w[(p * kWidth + j) * row_stride + k * column_stride] : 0;
    }
  }
}

void packed_product(std::int64_t begin, std::int64_t end, const PackedProduct& product) {
  const auto [num_rows, depth, num_outputs, x, panels, bias, onto, y] = product;
  if (num_rows == 0) return;
  const auto rows_at_once = divide_up(divide_up(num_rows, divide_up(num_rows, kMostRows)), kRows) * kRows;
  const auto depth_at_once = depth == 0 ? 1 : divide_up(depth, divide_up(depth, kMostDepth));
  for (std::int64_t row = 0; row < num_rows; row += rows_at_once) {
    const auto rows = smaller(rows_at_once, num_rows - row);
    for (std::int64_t k = 0; k == 0 || k < depth; k += depth_at_once) {  // at least once: sums of nothing begin with the bias, too
      const auto block = smaller(depth_at_once, depth - k);
      for (auto p = begin; p < end; ++p) {
        const auto at = row * num_outputs + p * kWidth;
        const float* from = k > 0 ? y : onto;
        const TileSums sums{.from = from != nullptr ? from + at : nullptr,
                            .bias = k == 0 && bias != nullptr ? bias + p * kWidth : nullptr,
                            .to = y + at,
                            .ld = num_outputs,
                            .columns = smaller(kWidth, num_outputs - p * kWidth)};
        const auto multiply = sums.columns == kWidth ? multiply_rows<kRows, true> : multiply_rows<kRows, false>;
        multiply(rows, block, x + row * depth + k, depth, panels + (p * depth + k) * kWidth, sums);
      }
    }
  }
}

}  // namespace quiver::backend::kernel::QUIVER_ISA
