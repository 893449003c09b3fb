// Products by weights in blocks of 4 or 8 bits, as GGUF files hold them, with activations of 16 bits. One namespace per instruction set.
//
// W [N, K] lies in panels of 16 rows; a panel is K / 32 blocks of 32 columns. In a block, four bytes of each of the 16 rows stand side
// by side, so that a vector of 16-bit lanes holds a pair of columns of every row:
//
//   kQ8_0  bytes 4r + c of the j-th 64: the weight of row r in column 4j + {0, 2, 1, 3}[c], plus 128
//   kQ4_0, kQ4_1  the same bytes: in the low half column 8j + {0, 2, 1, 3}[c], in the high half that column + 4
//   then 16 scales in float16, and for kQ4_1 16 minima
//
// A row x of activations becomes integers q with one scale s for each block: s = max |x| / 32639, q = x / s rounded to even. Then
//
//   y_n = sum over blocks b, in order, of  d_nb s_b (sum over k of u_nk q_k - z sum of q)  [+ m_nb s_b sum of q, for kQ4_1]
//
// with the stored weights u and the offset z (128, 8 or 0). Sums in a block are exact integers. Each term is added with one rounding.
// So a result has the same bits on every instruction set and for any number of rows and threads. |q| leaves room for two signed bytes,
// q = 256 hi + lo, so that AMX's tiles of int8 products give these bits, too (namespace amx, quantized_tiles_isa.cpp).
#pragma once

#include <cstdint>

namespace quiver::backend::kernel {

/// The block formats of GGUF files that products read as they are.
enum class BlockFormat : std::uint8_t { kQ8_0, kQ4_0, kQ4_1 };

inline constexpr std::int64_t kBlockWidth = 32;  ///< columns of a block
inline constexpr std::int64_t kPanelRows = 16;
inline constexpr float kLargestActivation = 32639;
/// A block of activations whose largest magnitude is smaller counts as zeros.
inline constexpr float kSmallestActivation = 0x1p-100f;

/// Bytes of a panel's block: those of 16 blocks in a GGUF file.
constexpr std::int64_t panel_block_bytes(BlockFormat format) {
  return format == BlockFormat::kQ8_0 ? 544 : format == BlockFormat::kQ4_0 ? 288 : 320;
}

/// Rows of activations: values [M, K], scales and sums [M, K / 32].
///
/// For AMX (namespace amx) they lie in tiles of 16 rows, the last of which may have fewer: values [K / 32][hi, lo][rows][32] as signed
/// bytes, in the panels' order of columns, scales and sums [K / 32][rows], the sums as float32. They take as much memory.
struct QuantizedRows {
  std::int16_t* values = nullptr;
  float* scales = nullptr;
  std::int32_t* sums = nullptr;   ///< of the values of each block
  std::int64_t num_in_tiles = 0;  ///< M if the rows lie in tiles, or 0
};

inline constexpr std::int64_t kTileRows = 16;          ///< of activations, for AMX
inline constexpr std::int64_t kMostTileDepth = 16384;  ///< K of the products that AMX computes

/// y [M, N] = onto + (x W^T + bias), over some of W's panels.
struct QuantizedProduct {
  BlockFormat format = BlockFormat::kQ8_0;
  std::int64_t num_rows = 0, depth = 0, num_outputs = 0;  ///< M, K, N
  QuantizedRows x;
  const std::uint8_t* panels = nullptr;
  const float* bias = nullptr;  ///< [N], or null
  const float* onto = nullptr;  ///< [M, onto_stride], or null; may be y
  float* y = nullptr;           ///< [M, y_stride]
  std::int64_t onto_stride = 0, y_stride = 0;
};

#define QUIVER_QUANTIZED_PRODUCT_KERNELS(ISA)                                                                                      \
  namespace ISA {                                                                                                                  \
  /* Rows [begin, end) of x [M, K] into their places in `rows`. A block with a number that is not finite gets NaN as its scale. */ \
  void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const QuantizedRows& rows);         \
  /* The outputs of panels [begin, end). */                                                                                        \
  void quantized_product(std::int64_t begin, std::int64_t end, const QuantizedProduct& product);                                   \
  /* The weights of panels [begin, end) as rows [16 (end - begin), K] of float32: d u - d z, or d u + m, each rounded once. */     \
  void dequantize_panels(std::int64_t begin, std::int64_t end, std::int64_t depth, BlockFormat format, const std::uint8_t* panels, \
                         float* out);                                                                                              \
  }
QUIVER_QUANTIZED_PRODUCT_KERNELS(v2)
QUIVER_QUANTIZED_PRODUCT_KERNELS(v3)
QUIVER_QUANTIZED_PRODUCT_KERNELS(v4)
QUIVER_QUANTIZED_PRODUCT_KERNELS(v4bf16)
#undef QUIVER_QUANTIZED_PRODUCT_KERNELS

namespace amx {  // rows in tiles; for K <= kMostTileDepth
void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const QuantizedRows& rows);
void quantized_product(std::int64_t begin, std::int64_t end, const QuantizedProduct& product);
}  // namespace amx

}  // namespace quiver::backend::kernel
