// Products by a frozen float32 matrix that was laid out in panels beforehand. One namespace per instruction set.
//
// W [N, K] is packed in panels of `panel_width` outputs: panel p holds, for every input k, W[p width .. p width + width)[k] next to
// each other, [ceil(N / width), K, width], with zeros past N.
#pragma once

#include <cstdint>

namespace quiver::backend::kernel {

/// y [M, N] = onto + x [M, K] W^T + bias, over some of W's panels.
struct PackedProduct {
  std::int64_t num_rows = 0, depth = 0, num_outputs = 0;  ///< M, K, N
  const float* x = nullptr;
  const float* panels = nullptr;
  const float* bias = nullptr;  ///< [N], or null
  const float* onto = nullptr;  ///< [M, N], or null; may not be y
  float* y = nullptr;
};

#define QUIVER_PACKED_PRODUCT_KERNELS(ISA)                                                                                   \
  namespace ISA {                                                                                                            \
  std::int64_t panel_width();                                                                                                \
  /* Panels [begin, end) of W, whose element (n, k) is at w[n * row_stride + k * column_stride]. */                          \
  void pack_panels(std::int64_t begin, std::int64_t end, std::int64_t num_outputs, std::int64_t depth, const float* w,       \
                   std::int64_t row_stride, std::int64_t column_stride, float* panels);                                      \
  /* The outputs of panels [begin, end). Every element is one sum over k in order, whatever the number of rows or panels. */ \
  void packed_product(std::int64_t begin, std::int64_t end, const PackedProduct& product);                                   \
  }
QUIVER_PACKED_PRODUCT_KERNELS(v2)
QUIVER_PACKED_PRODUCT_KERNELS(v3)
QUIVER_PACKED_PRODUCT_KERNELS(v4)
QUIVER_PACKED_PRODUCT_KERNELS(v4bf16)
#undef QUIVER_PACKED_PRODUCT_KERNELS

}  // namespace quiver::backend::kernel
