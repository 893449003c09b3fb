// A weight that stays in the blocks of few bits that its file has.
#pragma once

#include <torch/types.h>

#include <memory>

#include "quiver/backend/quantized_matrix.h"
#include "quiver/nn/matrix.h"

namespace quiver::nn {

/// W in blocks, of float32 values and on the CPU. Products read the blocks (backend::QuantizedMatrix). A transposed product makes all
/// values dense each time, so training wants dense weights.
class QuantizedWeight final : public Matrix {
 public:
  /// backend::is_blocks(blocks).
  explicit QuantizedWeight(const torch::Tensor& blocks) : matrix_(blocks) {}

  std::int64_t in_features() const override { return matrix_.depth(); }
  std::int64_t out_features() const override { return matrix_.num_outputs(); }
  torch::Device device() const override { return torch::kCPU; }
  torch::Dtype dtype() const override { return torch::kFloat; }
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const override;
  torch::Tensor product_transposed(const torch::Tensor& dy, const torch::Tensor& onto) const override;
  torch::Tensor dense() const override { return matrix_.dense(); }
  /// Rows of W by number, [T, d_in]; index [T] int64.
  torch::Tensor rows(const torch::Tensor& index) const { return matrix_.rows(index); }
  const backend::QuantizedMatrix& blocks() const { return matrix_; }

 private:
  backend::QuantizedMatrix matrix_;
};

}  // namespace quiver::nn
