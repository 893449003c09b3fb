// The definitions of all operations in torch operations: any device, any floating dtype, differentiable by autograd. Tests compare the
// other columns with them, and they run where no other column does.
#pragma once

#include <torch/types.h>

#include "quiver/backend/table.h"

namespace quiver::backend::reference {

Normed rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon);
torch::Tensor rms_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& inverse_rms, const torch::Tensor& onto);
void rotate_into(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, Rotation rotation, torch::Tensor& out);
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);
SwigluGradient swiglu_gradient(const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up);
LogitsSummary summarize_logits(const torch::Tensor& logits);
void cross_entropy_gradient(torch::Tensor& logits, const torch::Tensor& log_sum_exp, const torch::Tensor& target,
                            const torch::Tensor& weight);

torch::Tensor shrink(const torch::Tensor& x, const torch::Tensor& factor);
torch::Tensor expand(const torch::Tensor& z, const torch::Tensor& factor, const torch::Tensor& onto, torch::Dtype dtype);
torch::Tensor outer_product(const torch::Tensor& z, const torch::Tensor& x);

/// Undefined: the definition makes its own mask.
torch::Tensor attention_bias(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype);
Attended attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan, double scale,
                   const torch::Tensor& bias);
AttentionGradient attention_gradient(const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                                     const Attended& attended, const AttentionPlan& plan, double scale, const torch::Tensor& bias);
/// The gradient of an attention that is made of torch operations: computes it once more, under autograd.
AttentionGradient gradient_by_autograd(decltype(Ops::attention) function, const torch::Tensor& dout, const torch::Tensor& q,
                                       const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan, double scale,
                                       const torch::Tensor& bias);

std::shared_ptr<const MatrixLayout> lay_out(torch::Tensor weight);

torch::Tensor pack_prototypes(const torch::Tensor& rows);
torch::Tensor pack_vectors(const torch::Tensor& rows);
RoutedLayout pack_adapters(std::span<const LoraFactors> factors, torch::Device device);
Chosen route(const ScoreVectors& prototypes, const torch::Tensor& x, std::int64_t top_k, double temperature,
             const ScoreAdjustment& adjustment);
torch::Tensor shrink_routed(const ScoreVectors& vectors, const torch::Tensor& x, const torch::Tensor& index);
void add_routed(const RoutedAdapters& adapters, const torch::Tensor& x, const Chosen& chosen, Combine combine, torch::Tensor& y);

}  // namespace quiver::backend::reference
