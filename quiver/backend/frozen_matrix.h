// A matrix that never changes, laid out once for the products by it.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

namespace quiver::backend {

/// W [N, K] float32 in panels for the own kernel of products (kernels/packed_product_isa.h). Immutable.
class PackedMatrix {
 public:
  /// weight [N, K] float32 on the CPU, of any strides.
  explicit PackedMatrix(const torch::Tensor& weight);
  /// onto + x W^T + bias: x [T, K], bias [N] or undefined, onto [T, N] or undefined, all float32. Within a parallel region on the calling
  /// thread, else on all. A row of the result does not depend on the other rows.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const;
  torch::Tensor dense() const;  ///< W once more, [N, K]

 private:
  std::int64_t num_outputs_, depth_, width_;
  torch::Tensor panels_;  // [ceil(N / width), K, width]
};

/// W [N, K] in the layout that this machine multiplies fastest, and in no other.
///
///   bfloat16 where the CPU multiplies it, float32 with AVX-512   oneDNN's blocked layout: laying W out anew at every
///                                                                product would cost a few per cent
///   float32 with AVX2 alone                                      PackedMatrix: 7 to 26 % faster than libtorch's products
///                                                                (two Zen 3 cores, 96 to 192 rows)
///   all else                                                     as it is
///
/// Immutable; copies share the data. Products have no gradient.
class FrozenMatrix {
 public:
  FrozenMatrix() = default;
  explicit FrozenMatrix(torch::Tensor weight);
  /// onto + x W^T + bias, [T, N]; bias and onto may be undefined. x of W's dtype.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias = {}, const torch::Tensor& onto = {}) const;
  /// W^T; of a plain matrix a view.
  FrozenMatrix transposed() const;
  torch::Tensor dense() const;  ///< W, [N, K]; a copy unless plain
  bool is_plain() const { return plain_.defined(); }

 private:
  std::int64_t num_outputs_ = 0;
  torch::Tensor plain_, blocked_;
  std::shared_ptr<const PackedMatrix> packed_;
};

}  // namespace quiver::backend
