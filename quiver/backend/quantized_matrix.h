// A matrix in blocks of few bits, multiplied as it is stored.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quiver/backend/cpu/quantized_product_isa.h"

namespace quiver::backend {

/// Rows in blocks of 32 columns, as GGUF files hold them: [N, K / 32, bytes of a block] uint8 on the CPU. A block has 34 bytes (Q8_0),
/// 18 (Q4_0) or 20 (Q4_1).
bool is_blocks(const torch::Tensor& t);
/// The values of such rows, [N, K] float32.
torch::Tensor blocks_to_dense(const torch::Tensor& blocks);

/// A constant matrix W [N, K] of float32 values in blocks of 32 columns, laid out in panels of 16 rows (quantized_product_isa.h). It takes
/// no more memory than in the file.
///
/// Products read the blocks as they are. Activations are rounded to 16 bits by blocks of 32; all else is exact or float32. A row of a
/// result has the same bits on every CPU, for any number of rows and threads. Immutable; copies share the data. Products have no gradient.
class QuantizedMatrix {
 public:
  QuantizedMatrix() = default;
  /// Throws kInternal unless is_blocks(blocks).
  explicit QuantizedMatrix(const torch::Tensor& blocks);

  std::int64_t num_outputs() const { return num_outputs_; }
  std::int64_t depth() const { return depth_; }
  /// onto + (x W^T + bias), [T, N] float32: x [T, K], bias [N] and onto [T, N] float32 of any strides; bias and onto may be undefined.
  /// A row with a number that is not finite gives NaN. Throws kMismatch for another x.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias = {}, const torch::Tensor& onto = {}) const;
  /// Rows of W by number, [T, K] float32; index [T] int64.
  torch::Tensor rows(const torch::Tensor& index) const;
  torch::Tensor dense() const;  ///< W, [N, K] float32
  /// A product whose rows and places the caller sets.
  kernel::QuantizedProduct kernel_product() const;

 private:
  kernel::BlockFormat format_ = kernel::BlockFormat::kQ8_0;
  std::int64_t num_outputs_ = 0, depth_ = 0;
  torch::Tensor panels_;  // uint8
};

}  // namespace quiver::backend
