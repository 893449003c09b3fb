#include <torch/utils.h>

#include "quiver/backend/reference/columns.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend::reference {

namespace {

using tensor::compute_dtype;

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

void rotate_into(const Tensor& x, const Tensor& cosine, const Tensor& sine, Rotation rotation, Tensor out) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto c = cosine.to(wide).unsqueeze(1);  // [T, 1, D/2]
  const auto s = (rotation == Rotation::kBack ? -sine : sine).to(wide).unsqueeze(1);
  const auto halves = x.to(wide).chunk(2, -1);
  out.copy_(torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type()));
}

Tensor swiglu(const Tensor& gate, const Tensor& up) { return torch::silu(gate) * up; }

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
SwigluGradient swiglu_gradient(const Tensor& dy, const Tensor& gate, const Tensor& up) {
  const auto s = gate.sigmoid();
  return {dy * up * s * (1 + gate * (1 - s)), dy * gate * s};
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

}  // namespace

void add_elementwise(Ops& column) {
  column.rms_norm = rms_norm;
  column.rms_norm_gradient = rms_norm_gradient;
  column.rotate_into = rotate_into;
  column.swiglu = swiglu;
  column.swiglu_gradient = swiglu_gradient;
  column.summarize_logits = summarize_logits;
  column.cross_entropy_gradient = cross_entropy_gradient;
}

}  // namespace quiver::backend::reference
