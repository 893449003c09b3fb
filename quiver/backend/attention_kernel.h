// The CPU kernel behind forest_attention. Contiguous float32 or bfloat16 tensors on the CPU.
#pragma once

#include <torch/types.h>

#include <tuple>

#include "quiver/backend/attention_plan.h"

namespace quiver::backend {

/// -> out [Tq, H, D] and lse [H, Tq] float32, the log of each query's softmax denominator (not set for plans over a
/// KV cache).
std::tuple<torch::Tensor, torch::Tensor> attention_forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                                                           const AttentionPlan& plan, double scale);

/// Gradients of q, k and v given that of out.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> attention_backward(const torch::Tensor& dout, const torch::Tensor& q,
                                                                           const torch::Tensor& k, const torch::Tensor& v,
                                                                           const torch::Tensor& out, const torch::Tensor& lse,
                                                                           const AttentionPlan& plan, double scale);

}  // namespace quiver::backend
