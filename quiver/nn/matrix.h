// The weight of a linear map, in whatever format it is stored.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>

namespace quiver::nn {

/// A constant matrix W [d_out, d_in]. A storage format implements two products and the way back to dense values.
/// Thread-safe: all functions are const. Products have no gradient.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual std::int64_t in_features() const = 0;
  virtual std::int64_t out_features() const = 0;
  virtual torch::Device device() const = 0;
  /// The dtype of x, dy and of the products.
  virtual torch::Dtype dtype() const = 0;
  /// onto + x W^T + bias, [T, d_out]: x [T, d_in], bias [d_out] or undefined, onto [T, d_out] or undefined.
  virtual torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const = 0;
  /// onto + dy W, [T, d_in]: dy [T, d_out], onto [T, d_in] or undefined.
  virtual torch::Tensor product_transposed(const torch::Tensor& dy, const torch::Tensor& onto) const = 0;
  /// Makes the layout that product_transposed reads, if it needs one of its own. The first product_transposed does it otherwise.
  virtual void prepare_transposed() const {}
  /// W, [d_out, d_in]. A copy in formats that store another layout: for merging and for tests, not for every step.
  virtual torch::Tensor dense() const = 0;
};

using MatrixPtr = std::shared_ptr<const Matrix>;

/// Stands for a map whose product with the rows at hand is known: product(x) is `known` [T, d_out] whatever x is. For updates that are
/// computed apart from the map below them. It has no dense values.
MatrixPtr known_product(torch::Tensor known, std::int64_t in_features);

/// W [d_out, d_in] in the layout that this machine multiplies fastest (backend::FrozenMatrix). Throws kMismatch unless it is a matrix.
MatrixPtr make_matrix(const torch::Tensor& weight);

}  // namespace quiver::nn
