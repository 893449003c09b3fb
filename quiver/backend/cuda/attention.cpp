#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "quiver/backend/cuda/columns.h"
#include "quiver/backend/reference/reference.h"
#include "quiver/backend/row_parts.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend::cuda {
namespace {

/// Rows of a bias begin at multiples of this many elements, as libtorch's kernels want them.
constexpr std::int64_t kBiasAlignment = 16;

Tensor bias_of(const AttentionPlan& plan, torch::Device device, torch::Dtype dtype) {
  if (plan.window > 0) {
    const auto hidden = dense_mask(plan).to(device).logical_not();
    return torch::zeros(hidden.sizes(), torch::TensorOptions(dtype).device(device))
        .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  }
  const auto num_blocks = static_cast<std::int64_t>(plan.blocks.size());
  const auto counts = torch::TensorOptions(torch::kLong);
  auto of_block = torch::zeros({num_blocks, plan.num_keys}, torch::kBool);  // the keys of the spans
  auto block_of = torch::zeros({plan.num_queries}, counts), first = torch::zeros({plan.num_queries}, counts), last = first - 1;
  const auto seen_keys = tensor::mutable_elements<bool>(of_block, "keys of the spans");
  const auto blocks = tensor::mutable_elements<std::int64_t>(block_of, "blocks of the queries");
  const auto firsts = tensor::mutable_elements<std::int64_t>(first, "first keys"),
             lasts = tensor::mutable_elements<std::int64_t>(last, "last keys");
  for (std::int64_t b = 0; b < num_blocks; ++b) {
    const auto& block = plan.blocks[static_cast<std::size_t>(b)];
    for (auto s = block.spans_begin; s < block.spans_end; ++s) {
      const auto& span = plan.spans[static_cast<std::size_t>(s)];
      std::fill_n(seen_keys.begin() + b * plan.num_keys + span.first, span.length, true);
    }
    std::fill_n(blocks.begin() + block.first_query, block.length, b);
    std::fill_n(firsts.begin() + block.first_query, block.length, block.first_key);
    std::iota(lasts.begin() + block.first_query, lasts.begin() + block.first_query + block.length, block.first_key);
  }
  const auto column = [&](const Tensor& t) { return t.to(device).unsqueeze(1); };
  const auto keys = torch::arange(plan.num_keys, counts.device(device)).unsqueeze(0);
  const auto own = keys.ge(column(first)).logical_and_(keys.le(column(last)));  // [Tq, Tk]
  const auto seen = of_block.to(device).index_select(0, block_of.to(device)).logical_or_(own);
  const auto stride = divide_up(plan.num_keys, kBiasAlignment) * kBiasAlignment;
  auto bias = torch::zeros({plan.num_queries, stride}, torch::TensorOptions(dtype).device(device)).narrow(1, 0, plan.num_keys);
  return bias.masked_fill_(seen.logical_not(), -std::numeric_limits<double>::infinity());
}

/// libtorch's attention, whose GPU kernels keep no scores.
Attended attention(const AttentionInput& in) {
  if (in.scores.cap > 0) return reference::attention(in);
  const auto mask = in.bias.defined() ? in.bias : bias_of(in.plan, in.q.device(), in.q.scalar_type());
  const auto group = in.q.size(1) / in.k.size(1);
  const auto heads_first = [](const Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };  // [1, H, T, D]
  const auto out = torch::scaled_dot_product_attention(heads_first(in.q), heads_first(in.k).repeat_interleave(group, 1),
                                                       heads_first(in.v).repeat_interleave(group, 1), mask, /*dropout_p=*/0.0,
                                                       /*is_causal=*/false, in.scores.scale);
  return {out.squeeze(0).transpose(0, 1).contiguous(), {}};
}

AttentionGradient attention_gradient(const Tensor& dout, const AttentionInput& in, const Attended&) {
  return reference::gradient_by_autograd(attention, dout, in);
}

}  // namespace

void add_attention(Ops& column) {
  column.attention_bias = bias_of;
  column.attention = attention;
  column.attention_gradient = attention_gradient;
}

}  // namespace quiver::backend::cuda
