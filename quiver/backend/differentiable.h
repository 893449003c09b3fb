// How an operation of the table gets its gradient for autograd.
#pragma once

#include <torch/types.h>

#include <functional>
#include <vector>

namespace quiver::backend {

using Outputs = std::vector<torch::Tensor>;

/// An operation and its gradient, both without autograd.
struct DifferentiableOp {
  /// The result, and after it what the gradient needs beside the inputs.
  std::function<Outputs(at::TensorList inputs)> forward;
  /// The gradients of the inputs, in their order, given that of the result, contiguous; undefined for an input that is frozen. `kept` is
  /// what forward gave after the result.
  std::function<Outputs(const torch::Tensor& dy, at::TensorList inputs, at::TensorList kept)> gradient;
};

/// op.forward(inputs)[0], as one node of autograd's graph whose gradient is op.gradient. For operations made of torch operations autograd
/// needs no such help.
torch::Tensor apply(const DifferentiableOp& op, at::TensorList inputs);

}  // namespace quiver::backend
