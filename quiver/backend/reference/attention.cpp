#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <limits>

#include "quiver/backend/reference/reference.h"

namespace quiver::backend {

torch::Tensor dense_mask(const AttentionPlan& plan) {
  auto seen = torch::zeros({plan.num_queries, plan.num_keys}, torch::kBool);
  for (const auto& block : plan.blocks) {
    auto rows = seen.narrow(0, block.first_query, block.length);
    for (auto s = block.spans_begin; s < block.spans_end; ++s) {
      const auto& span = plan.spans[static_cast<std::size_t>(s)];
      rows.narrow(1, span.first, span.length).fill_(true);
    }
    rows.narrow(1, block.first_key, block.length).copy_(torch::ones({block.length, block.length}, torch::kBool).tril());
  }
  return seen;
}

}  // namespace quiver::backend

namespace quiver::backend::reference {

torch::Tensor attention_bias(const AttentionPlan&, torch::Device, torch::Dtype) { return {}; }

Attended attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan, double scale,
                   const torch::Tensor& /*bias*/) {
  const auto group = q.size(1) / k.size(1);
  const auto compute = q.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto heads_first = [compute](const torch::Tensor& t) { return t.to(compute).transpose(0, 1); };
  const auto queries = heads_first(q);                                // [H, Tq, D]
  const auto keys = heads_first(k).repeat_interleave(group, 0);       // [H, Tk, D]
  const auto values = heads_first(v).repeat_interleave(group, 0);     // [H, Tk, D]
  const auto hidden = dense_mask(plan).to(q.device()).logical_not();  // [Tq, Tk]
  auto scores = queries.matmul(keys.transpose(1, 2)) * scale;         // [H, Tq, Tk]
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return {scores.softmax(-1).matmul(values).transpose(0, 1).to(q.scalar_type()).contiguous(), {}};
}

AttentionGradient attention_gradient(const torch::Tensor& dout, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                                     const Attended&, const AttentionPlan& plan, double scale, const torch::Tensor& bias) {
  return gradient_by_autograd(attention, dout, q, k, v, plan, scale, bias);
}

AttentionGradient gradient_by_autograd(decltype(Ops::attention) function, const torch::Tensor& dout, const torch::Tensor& q,
                                       const torch::Tensor& k, const torch::Tensor& v, const AttentionPlan& plan, double scale,
                                       const torch::Tensor& bias) {
  const torch::AutoGradMode with_grad(true);
  const torch::autograd::variable_list inputs = {q.detach().requires_grad_(), k.detach().requires_grad_(), v.detach().requires_grad_()};
  const auto gradients = torch::autograd::grad({function(inputs[0], inputs[1], inputs[2], plan, scale, bias).out}, inputs, {dout});
  return {gradients[0].contiguous(), gradients[1].contiguous(), gradients[2].contiguous()};
}

}  // namespace quiver::backend::reference
