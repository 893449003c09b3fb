// A float32 matrix in panels for the own kernel of products.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quiver/backend/frozen_matrix.h"
#include "quiver/tensor/cpu.h"

namespace quiver::backend::cpu {

/// W [N, K] float32 in the panels of one instruction set (packed_product_isa.h). Products run within a parallel region on the calling
/// thread, else on all. A row of the result does not depend on the other rows.
class PackedMatrix final : public MatrixLayout {
 public:
  /// weight [N, K] float32 on the CPU, of any strides. The CPU has `isa`.
  PackedMatrix(const torch::Tensor& weight, tensor::CpuIsa isa);
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const override;
  torch::Tensor dense() const override;

 private:
  tensor::CpuIsa isa_;
  std::int64_t num_outputs_, depth_, width_;
  torch::Tensor panels_;  // [ceil(N / width), K, width]
};

}  // namespace quiver::backend::cpu
