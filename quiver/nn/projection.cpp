#include "quiver/nn/projection.h"

#include <torch/torch.h>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {

DenseProjection::DenseProjection(torch::Tensor weight, torch::Tensor bias)
    : weight_(std::move(weight)), bias_(std::move(bias)) {
  if (weight_.dim() != 2 || (bias_.defined() && (bias_.dim() != 1 || bias_.size(0) != weight_.size(0) ||
                                                 bias_.scalar_type() != weight_.scalar_type()))) {
    fail(ErrorKind::kMismatch, "not a linear map: weight is {} and bias is {}; expected [d_out, d_in] and [d_out]",
         tensor::describe(weight_), tensor::describe(bias_));
  }
}

torch::Tensor DenseProjection::forward(const torch::Tensor& x) const {
  return bias_.defined() ? torch::linear(x, weight_, bias_) : torch::linear(x, weight_);
}

torch::Tensor DenseProjection::backward(const torch::Tensor& dy) const { return dy.matmul(weight_); }

}  // namespace quiver::nn
