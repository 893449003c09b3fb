// A matrix that never changes, laid out once for the products by it.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

namespace quiver::backend {

/// How a constant matrix W [N, K] is stored. Immutable, thread-safe.
class MatrixLayout {
 public:
  virtual ~MatrixLayout() = default;
  /// onto + x W^T + bias, [T, N], of arguments that FrozenMatrix::product has checked.
  virtual torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const = 0;
  virtual torch::Tensor dense() const = 0;  ///< W, [N, K]
};

/// A constant matrix W [N, K], stored only in the layout that the column of its device and dtype multiplies fastest:
///
///   bfloat16 where the CPU multiplies it, float32 with AVX-512   oneDNN's blocked layout: laying W out anew at every
///                                                                product would cost a few per cent
///   float32 with AVX2 alone                                      panels for the own kernel of products: 7 to 26 % faster than
///                                                                libtorch's products (two Zen 3 cores, 96 to 192 rows)
///   all else                                                     as it is
///
/// Immutable; copies share the data. Products have no gradient.
class FrozenMatrix {
 public:
  FrozenMatrix() = default;
  explicit FrozenMatrix(const torch::Tensor& weight);
  /// Of any layout, for the table's columns and for tests.
  FrozenMatrix(const torch::Tensor& weight, std::shared_ptr<const MatrixLayout> layout);
  /// onto + x W^T + bias, [T, N]: x [T, K], bias [N] and onto [T, N] of W's dtype, of any strides; bias and onto may be undefined. Throws
  /// kMismatch for another x, kInternal for another bias or onto.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias = {}, const torch::Tensor& onto = {}) const;
  /// W^T; of a plain matrix a view.
  FrozenMatrix transposed() const;
  torch::Tensor dense() const { return layout_->dense(); }  ///< W, [N, K]; a copy unless plain

 private:
  std::int64_t num_outputs_ = 0, depth_ = 0;
  torch::Device device_ = torch::kCPU;
  torch::Dtype dtype_ = torch::kFloat;
  std::shared_ptr<const MatrixLayout> layout_;
};

}  // namespace quiver::backend
