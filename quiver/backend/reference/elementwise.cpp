#include <torch/utils.h>

#include "quiver/backend/reference/reference.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend::reference {

using tensor::compute_dtype;

Normed rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  const auto wide = x.to(compute_dtype(x.scalar_type()));
  const auto inverse = (wide.square().mean(-1) + epsilon).rsqrt();
  return {(wide * inverse.unsqueeze(-1) * weight.to(wide.scalar_type())).to(x.scalar_type()), inverse};
}

// With n = x / rms: dx = (w dy - n mean(w dy n)) / rms.
torch::Tensor rms_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& inverse_rms, const torch::Tensor& onto) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto inverse = inverse_rms.to(wide).unsqueeze(1);
  const auto scaled = dy.to(wide) * weight.to(wide), n = x.to(wide) * inverse;
  const auto dx = ((scaled - n * (scaled * n).mean(-1, /*keepdim=*/true)) * inverse).to(x.scalar_type());
  return onto.defined() ? onto + dx : dx;
}

void rotate_into(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, Rotation rotation, torch::Tensor& out) {
  const auto wide = compute_dtype(x.scalar_type());
  const auto c = cosine.to(wide).unsqueeze(1);  // [T, 1, D/2]
  const auto s = (rotation == Rotation::kBack ? -sine : sine).to(wide).unsqueeze(1);
  const auto halves = x.to(wide).chunk(2, -1);
  out.copy_(torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type()));
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) { return torch::silu(gate) * up; }

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g).
SwigluGradient swiglu_gradient(const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up) {
  const auto s = gate.sigmoid();
  return {dy * up * s * (1 + gate * (1 - s)), dy * gate * s};
}

LogitsSummary summarize_logits(const torch::Tensor& logits) {
  const auto wide = logits.to(compute_dtype(logits.scalar_type()));
  return {wide.logsumexp(1), wide.argmax(1)};
}

void cross_entropy_gradient(torch::Tensor& logits, const torch::Tensor& log_sum_exp, const torch::Tensor& target,
                            const torch::Tensor& weight) {
  auto gradient = (logits.to(log_sum_exp.scalar_type()) - log_sum_exp.unsqueeze(1)).exp();
  gradient.scatter_add_(1, target.unsqueeze(1), torch::full_like(log_sum_exp, -1).unsqueeze(1));
  logits = (gradient * weight.unsqueeze(1)).to(logits.scalar_type());
}

}  // namespace quiver::backend::reference
