#include "quiver/backend/reference/reference.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <numbers>
#include <utility>

#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend::reference {
namespace {

using tensor::compute_dtype;

// ---- Row-wise operations

Normed rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  const auto wide = x.to(compute_dtype(x.scalar_type()));
  const auto inverse = (wide.square().mean(-1) + epsilon).rsqrt();
  return {(wide * inverse.unsqueeze(-1) * weight.to(wide.scalar_type())).to(x.scalar_type()), inverse};
}

// With n = x / rms: dx = (w dy - n mean(w dy n)) / rms.
Tensor rms_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& onto) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto inverse = inverse_rms.to(wide).unsqueeze(1);
  const auto scaled = dy.to(wide) * weight.to(wide), n = x.to(wide) * inverse;
  const auto dx = ((scaled - n * (scaled * n).mean(-1, /*keepdim=*/true)) * inverse).to(x.scalar_type());
  return onto.defined() ? onto + dx : dx;
}

LayerNormed layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const auto wide = x.to(compute_dtype(x.scalar_type()));
  const auto mean = wide.mean(-1);
  const auto centered = wide - mean.unsqueeze(-1);
  const auto inverse = (centered.square().mean(-1) + epsilon).rsqrt();
  const auto y = centered * inverse.unsqueeze(-1) * weight.to(wide.scalar_type()) + bias.to(wide.scalar_type());
  return {y.to(x.scalar_type()), mean, inverse};
}

// With n = (x - mean) / deviation: dx = (w dy - mean(w dy) - n mean(w dy n)) / deviation.
Tensor layer_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const LayerNormed& normed, const Tensor& onto) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto inverse = normed.inverse_deviation.to(wide).unsqueeze(1);
  const auto scaled = dy.to(wide) * weight.to(wide), n = (x.to(wide) - normed.mean.to(wide).unsqueeze(1)) * inverse;
  const auto dx = (scaled - scaled.mean(-1, /*keepdim=*/true) - n * (scaled * n).mean(-1, /*keepdim=*/true)) * inverse;
  return onto.defined() ? onto + dx.to(x.scalar_type()) : dx.to(x.scalar_type());
}

void rotate_into(const Tensor& x, const Tensor& cosine, const Tensor& sine, Rotation rotation, const Tensor& out) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto n = 2 * cosine.size(1), rest = x.size(2) - n;
  const auto c = cosine.to(wide).unsqueeze(1);  // [T, 1, n/2]
  const auto s = (rotation == Rotation::kBack ? -sine : sine).to(wide).unsqueeze(1);
  const auto halves = x.narrow(2, 0, n).to(wide).chunk(2, -1);
  out.narrow(2, 0, n).copy_(torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type()));
  if (rest > 0) out.narrow(2, n, rest).copy_(x.narrow(2, n, rest));
}

Tensor act(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::kSilu: return torch::silu(x);
    case Activation::kGelu: return torch::gelu(x);
    case Activation::kGeluTanh: return torch::gelu(x, "tanh");
    case Activation::kRelu: return torch::relu(x);
  }
  return {};
}

Tensor act_gradient(Activation activation, const Tensor& x) {
  constexpr double kRootHalf = std::numbers::sqrt2 / 2, kRootTwoOverPi = 0.79788456080286535588;
  switch (activation) {
    case Activation::kSilu: {
      const auto s = x.sigmoid();
      return s * (1 + x * (1 - s));
    }
    case Activation::kGelu:  // Phi(x) + x phi(x)
      return (1 + (x * kRootHalf).erf()) / 2 + x * (-x.square() / 2).exp() * (kRootTwoOverPi / 2);
    case Activation::kGeluTanh: {
      const auto t = (kRootTwoOverPi * (x + 0.044715 * x.pow(3))).tanh();
      return (1 + t) / 2 + x * (1 - t.square()) * kRootTwoOverPi * (1 + 3 * 0.044715 * x.square()) / 2;
    }
    case Activation::kRelu: return (x > 0).to(x.scalar_type());
  }
  return {};
}

Tensor wide_of(const Tensor& x) { return x.to(compute_dtype(x.scalar_type())); }

Tensor gated(Activation activation, const Tensor& gate, const Tensor& up) {
  return (act(activation, wide_of(gate)) * wide_of(up)).to(gate.scalar_type());
}

GatedGradient gated_gradient(Activation activation, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  const auto wide = wide_of(gate), upstream = wide_of(dy);
  return {(upstream * wide_of(up) * act_gradient(activation, wide)).to(gate.scalar_type()),
          (upstream * act(activation, wide)).to(gate.scalar_type())};
}

Tensor activated(Activation activation, const Tensor& x) { return act(activation, wide_of(x)).to(x.scalar_type()); }
Tensor activated_gradient(Activation activation, const Tensor& dy, const Tensor& x) {
  return (wide_of(dy) * act_gradient(activation, wide_of(x))).to(x.scalar_type());
}

LogitsSummary summarize_logits(const Tensor& logits) {
  const auto wide = logits.to(compute_dtype(logits.scalar_type()));
  return {wide.logsumexp(1), wide.argmax(1)};
}

void cross_entropy_gradient(Tensor& logits, const Tensor& log_sum_exp, const Tensor& target, const Tensor& weight) {
  auto gradient = (logits.to(log_sum_exp.scalar_type()) - log_sum_exp.unsqueeze(1)).exp();
  gradient.scatter_add_(1, target.unsqueeze(1), torch::full_like(log_sum_exp, -1).unsqueeze(1));
  logits = (gradient * weight.unsqueeze(1)).to(logits.scalar_type());
}

// ---- The small products of a LoRA

Tensor shrink(const Tensor& x, const Tensor& factor) { return x.to(factor.scalar_type()).mm(factor.t()); }

Tensor expand(const Tensor& z, const Tensor& factor, const Tensor& onto, torch::Dtype dtype) {
  const auto update = z.mm(factor);
  return (onto.defined() ? onto.to(update.scalar_type()) + update : update).to(dtype);
}

Tensor outer_product(const Tensor& z, const Tensor& x) { return z.t().mm(x.to(z.scalar_type())); }

// ---- Attention

Tensor bias_of(const AttentionPlan&, torch::Device, torch::Dtype) { return {}; }  // the definition makes its own mask

}  // namespace

Attended attention(const AttentionInput& in) {
  const auto group = in.q.size(1) / in.k.size(1);
  const auto compute = compute_dtype(in.q.scalar_type());
  const auto heads_first = [compute](const Tensor& t) { return t.to(compute).transpose(0, 1); };
  const auto queries = heads_first(in.q);                                   // [H, Tq, D]
  const auto keys = heads_first(in.k).repeat_interleave(group, 0);          // [H, Tk, D]
  const auto values = heads_first(in.v).repeat_interleave(group, 0);        // [H, Tk, D]
  const auto hidden = dense_mask(in.plan).to(in.q.device()).logical_not();  // [Tq, Tk]
  auto scores = queries.matmul(keys.transpose(1, 2)) * in.scores.scale;     // [H, Tq, Tk]
  if (in.scores.cap > 0) scores = (scores / in.scores.cap).tanh() * in.scores.cap;
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return {scores.softmax(-1).matmul(values).transpose(0, 1).to(in.q.scalar_type()).contiguous(), {}};
}

namespace {

AttentionGradient attention_gradient(const Tensor& dout, const AttentionInput& in, const Attended&) {
  return gradient_by_autograd(attention, dout, in);
}

// ---- Products by a constant matrix

class PlainLayout final : public MatrixLayout {
 public:
  explicit PlainLayout(Tensor weight) : weight_(std::move(weight)) {}
  Tensor product(const Tensor& x, const Tensor& bias, const Tensor& onto) const override {
    const auto y = bias.defined() ? torch::linear(x, weight_, bias) : torch::linear(x, weight_);
    return onto.defined() ? onto + y : y;
  }
  Tensor dense() const override { return weight_; }

 private:
  Tensor weight_;
};

std::shared_ptr<const MatrixLayout> lay_out(const Tensor& weight) { return std::make_shared<PlainLayout>(weight); }

// ---- Routed LoRAs

/// The table's row of each token's group, [T, num_adapters], on `device`. Only the rows of groups that occur go there.
Tensor bias_rows(const ScoreAdjustment& adjustment, std::int64_t num_adapters, std::int64_t num_tokens, torch::Device device) {
  std::vector<std::int32_t> distinct(adjustment.groups.begin(), adjustment.groups.end());
  if (distinct.empty()) distinct = {0};
  std::ranges::sort(distinct);
  const auto repeated = std::ranges::unique(distinct);
  distinct.erase(repeated.begin(), repeated.end());
  auto rows = torch::empty({static_cast<std::int64_t>(distinct.size()), num_adapters}, torch::kFloat);
  auto to = tensor::mutable_trusted_data<float>(rows);
  for (const auto group : distinct) to = std::ranges::copy_n(adjustment.bias.begin() + group * num_adapters, num_adapters, to).out;
  auto of_token = torch::zeros({num_tokens}, torch::kLong);
  auto* numbers = tensor::mutable_trusted_data<std::int64_t>(of_token);
  for (const auto group : adjustment.groups) *numbers++ = std::ranges::lower_bound(distinct, group) - distinct.begin();
  return rows.to(device).index_select(0, of_token.to(device));
}

/// The tokens that chose an adapter [T_i], and its weight there [T_i, 1].
struct Users {
  Tensor rows, gate;
};

Users users_of(const Chosen& chosen, std::int64_t adapter) {
  const auto is_chosen = chosen.index == adapter;                   // [T, k]
  const auto rows = is_chosen.any(/*dim=*/1).nonzero().squeeze(1);  // [T_i]
  const auto gate = torch::where(is_chosen, chosen.weight, torch::zeros_like(chosen.weight)).sum(1);
  return {rows, gate.index_select(0, rows).unsqueeze(1)};
}

ScoreLayout pack_nothing(const Tensor&) { return {}; }
RoutedLayout pack_adapters(std::span<const LoraFactors>, torch::Device) { return {}; }

/// Scores [T, N] made comparable.
Tensor adjusted(Tensor scores, const ScoreAdjustment& adjustment) {
  const auto device = scores.device();
  if (adjustment.scale.defined()) scores = scores * adjustment.scale.on(device) + adjustment.shift.on(device);
  if (!adjustment.bias.empty()) scores = scores + bias_rows(adjustment, scores.size(1), scores.size(0), device);
  return scores;
}

Tensor prototype_scores(const ScoreVectors& prototypes, const Tensor& x) {
  return x.to(torch::kFloat).matmul(prototypes.rows.on(x.device()).t()).abs();  // [T, N]
}

Chosen route(const ScoreVectors& prototypes, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  return choose_softmax(adjusted(prototype_scores(prototypes, x), adjustment), top_k, temperature);
}

Chosen route_shortlisted(const Shortlist& by, const Tensor& x, std::int64_t top_k, double temperature, const ScoreAdjustment& adjustment) {
  const auto listed = top_scores(prototype_scores(by.prototypes, x), by.size).index;
  const auto rows = by.vectors.rows.on(x.device());                                         // [N, c, d_in]
  const auto products = x.to(torch::kFloat).matmul(rows.flatten(0, 1).t());                 // [T, N c]
  const auto scores = products.view({x.size(0), rows.size(0), rows.size(1)}).norm(2, {2});  // [T, N]
  const auto is_out = torch::ones(scores.sizes(), scores.options().dtype(torch::kBool)).scatter_(1, listed, false);
  return choose_softmax(adjusted(scores, adjustment).masked_fill(is_out, -std::numeric_limits<double>::infinity()), top_k, temperature);
}

Tensor shrink_routed(const ScoreVectors& vectors, const Tensor& x, const Tensor& index) {
  const auto rows = vectors.rows.on(x.device());                             // [N, c, d_in]
  const auto products = x.to(torch::kFloat).matmul(rows.flatten(0, 1).t());  // [T, N c]
  const auto each = products.view({x.size(0), rows.size(0), rows.size(1)});
  return each.gather(1, index.unsqueeze(2).expand({-1, -1, rows.size(1)}));
}

void add_routed(const RoutedAdapters& adapters, const Tensor& x, const Chosen& chosen, Combine combine, const Tensor& y) {
  const auto dtype = compute_dtype(x.scalar_type());
  const auto tokens = x.to(dtype);
  const auto& factors = adapters.factors;
  const auto placed = [&](const Tensor& factor) { return factor.to(x.device(), dtype).t(); };
  auto update = torch::zeros(y.sizes(), tokens.options());
  Tensor mixed;  // u_t = sum_i w_ti A_i x_t, [T, r], where parameters are mixed
  if (combine == Combine::kParams) mixed = torch::zeros({x.size(0), factors.front().lora_a.size(0)}, tokens.options());

  std::vector<Users> users;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    users.push_back(users_of(chosen, static_cast<std::int64_t>(i)));
    const auto& [rows, gate] = users.back();
    if (rows.numel() == 0) continue;                                                     // most adapters are idle in a small batch
    const auto hidden = tokens.index_select(0, rows).matmul(placed(factors[i].lora_a));  // [T_i, r]
    if (combine == Combine::kParams) {
      mixed.index_add_(0, rows, gate.to(dtype) * hidden);
    } else {
      update.index_add_(0, rows, gate.to(dtype) * factors[i].scaling * hidden.matmul(placed(factors[i].lora_b)));
    }
  }
  for (std::size_t i = 0; combine == Combine::kParams && i < factors.size(); ++i) {
    const auto& [rows, gate] = users[i];
    if (rows.numel() == 0) continue;
    const auto part = mixed.index_select(0, rows).matmul(placed(factors[i].lora_b));  // [T_i, d_out]
    update.index_add_(0, rows, gate.to(dtype) * factors[i].scaling * part);
  }
  y.add_(update.to(y.scalar_type()));
}

}  // namespace

AttentionGradient gradient_by_autograd(decltype(Ops::attention) attention, const Tensor& dout, const AttentionInput& in) {
  const torch::AutoGradMode with_grad(true);
  const std::vector<Tensor> inputs = {in.q.detach().requires_grad_(), in.k.detach().requires_grad_(), in.v.detach().requires_grad_()};
  const auto result = attention({inputs[0], inputs[1], inputs[2], in.plan, in.scores, in.bias}).out;
  const auto gradients = torch::autograd::grad({result}, inputs, {dout});
  return {gradients[0].contiguous(), gradients[1].contiguous(), gradients[2].contiguous()};
}

Ops column() {
  return {.name = "reference",
          .rms_norm = rms_norm,
          .rms_norm_gradient = rms_norm_gradient,
          .layer_norm = layer_norm,
          .layer_norm_gradient = layer_norm_gradient,
          .rotate_into = rotate_into,
          .gated = gated,
          .gated_gradient = gated_gradient,
          .activated = activated,
          .activated_gradient = activated_gradient,
          .summarize_logits = summarize_logits,
          .cross_entropy_gradient = cross_entropy_gradient,
          .shrink = shrink,
          .expand = expand,
          .outer_product = outer_product,
          .attention_bias = bias_of,
          .attention = attention,
          .attention_gradient = attention_gradient,
          .lay_out = lay_out,
          .pack_prototypes = pack_nothing,
          .pack_vectors = pack_nothing,
          .pack_adapters = pack_adapters,
          .route = route,
          .route_shortlisted = route_shortlisted,
          .shrink_routed = shrink_routed,
          .add_routed = add_routed};
}

}  // namespace quiver::backend::reference
