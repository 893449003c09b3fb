#include "quiver/nn/quantized_weight.h"

#include <torch/utils.h>

#include "quiver/base/profile.h"

namespace quiver::nn {

torch::Tensor QuantizedWeight::product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const {
  const StageTimer timer(Stage::kProducts);
  return matrix_.product(x, bias, onto);
}

torch::Tensor QuantizedWeight::product_transposed(const torch::Tensor& dy, const torch::Tensor& onto) const {
  const StageTimer timer(Stage::kProducts);
  const auto dx = dy.matmul(matrix_.dense());
  return onto.defined() ? onto + dx : dx;
}

}  // namespace quiver::nn
