#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <limits>

#include "quiver/backend/reference/columns.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {

Tensor dense_mask(const AttentionPlan& plan) {
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
namespace {

Tensor bias_of(const AttentionPlan&, torch::Device, torch::Dtype) { return {}; }  // the definition makes its own mask

Attended attention(const AttentionInput& in) {
  const auto group = in.q.size(1) / in.k.size(1);
  const auto compute = tensor::compute_dtype(in.q.scalar_type());
  const auto heads_first = [compute](const Tensor& t) { return t.to(compute).transpose(0, 1); };
  const auto queries = heads_first(in.q);                                   // [H, Tq, D]
  const auto keys = heads_first(in.k).repeat_interleave(group, 0);          // [H, Tk, D]
  const auto values = heads_first(in.v).repeat_interleave(group, 0);        // [H, Tk, D]
  const auto hidden = dense_mask(in.plan).to(in.q.device()).logical_not();  // [Tq, Tk]
  auto scores = queries.matmul(keys.transpose(1, 2)) * in.scale;            // [H, Tq, Tk]
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return {scores.softmax(-1).matmul(values).transpose(0, 1).to(in.q.scalar_type()).contiguous(), {}};
}

AttentionGradient attention_gradient(const Tensor& dout, const AttentionInput& in, const Attended&) {
  return gradient_by_autograd(attention, dout, in);
}

}  // namespace

AttentionGradient gradient_by_autograd(decltype(Ops::attention) attention, const Tensor& dout, const AttentionInput& in) {
  const torch::AutoGradMode with_grad(true);
  const std::vector<Tensor> inputs = {in.q.detach().requires_grad_(), in.k.detach().requires_grad_(), in.v.detach().requires_grad_()};
  const auto result = attention({inputs[0], inputs[1], inputs[2], in.plan, in.scale, in.bias}).out;
  const auto gradients = torch::autograd::grad({result}, inputs, {dout});
  return {gradients[0].contiguous(), gradients[1].contiguous(), gradients[2].contiguous()};
}

void add_attention(Ops& column) {
  column.attention_bias = bias_of;
  column.attention = attention;
  column.attention_gradient = attention_gradient;
}

}  // namespace quiver::backend::reference
