#include "quiver/backend/ops.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/backend/table.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {

using tensor::compute_dtype;
using tensor::expect_layout;

Normed rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  const StageTimer timer(Stage::kNorm);
  expect_layout(x, "x of rms_norm", x.device(), x.scalar_type(), {x.size(0), x.size(1)});
  expect_layout(weight, "weight of rms_norm", x.device(), compute_dtype(x.scalar_type()), {x.size(1)});
  return ops_of(x).rms_norm(x, weight, epsilon);
}

Tensor rms_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& onto) {
  const StageTimer timer(Stage::kNorm);
  const auto device = x.device();
  const auto dtype = x.scalar_type();
  expect_layout(dy, "dy of rms_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  expect_layout(x, "x of rms_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  expect_layout(weight, "weight of rms_norm_gradient", device, compute_dtype(dtype), {x.size(1)});
  expect_layout(inverse_rms, "inverse_rms of rms_norm_gradient", device, compute_dtype(dtype), {x.size(0)});
  if (onto.defined()) expect_layout(onto, "onto of rms_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  return ops_of(x).rms_norm_gradient(dy, x, weight, inverse_rms, onto);
}

LayerNormed layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const StageTimer timer(Stage::kNorm);
  expect_layout(x, "x of layer_norm", x.device(), x.scalar_type(), {x.size(0), x.size(1)});
  expect_layout(weight, "weight of layer_norm", x.device(), compute_dtype(x.scalar_type()), {x.size(1)});
  expect_layout(bias, "bias of layer_norm", x.device(), compute_dtype(x.scalar_type()), {x.size(1)});
  return ops_of(x).layer_norm(x, weight, bias, epsilon);
}

Tensor layer_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const LayerNormed& normed, const Tensor& onto) {
  const StageTimer timer(Stage::kNorm);
  const auto device = x.device();
  const auto dtype = x.scalar_type(), wide = compute_dtype(dtype);
  expect_layout(dy, "dy of layer_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  expect_layout(x, "x of layer_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  expect_layout(weight, "weight of layer_norm_gradient", device, wide, {x.size(1)});
  expect_layout(normed.mean, "mean of layer_norm_gradient", device, wide, {x.size(0)});
  expect_layout(normed.inverse_deviation, "inverse_deviation of layer_norm_gradient", device, wide, {x.size(0)});
  if (onto.defined()) expect_layout(onto, "onto of layer_norm_gradient", device, dtype, {x.size(0), x.size(1)});
  return ops_of(x).layer_norm_gradient(dy, x, weight, normed, onto);
}

void rotate_into(const Tensor& x, const Tensor& cosine, const Tensor& sine, Rotation rotation, const Tensor& out) {
  const StageTimer timer(Stage::kRotation);
  expect_layout(x, "x of rotate", x.device(), x.scalar_type(), {x.size(0), x.size(1), x.size(2)});
  const auto pairs = std::min(cosine.size(-1), x.size(2) / 2);
  expect_layout(cosine, "cosine of rotate", x.device(), compute_dtype(x.scalar_type()), {x.size(0), pairs});
  expect_layout(sine, "sine of rotate", x.device(), compute_dtype(x.scalar_type()), {x.size(0), pairs});
  expect_layout(out, "out of rotate", x.device(), x.scalar_type(), {x.size(0), x.size(1), x.size(2)});
  ops_of(x).rotate_into(x, cosine, sine, rotation, out);
}

Tensor gated(Activation activation, const Tensor& gate, const Tensor& up) {
  const StageTimer timer(Stage::kActivation);
  const auto g = gate.contiguous(), u = up.contiguous();
  expect_layout(g, "gate of gated", gate.device(), gate.scalar_type(), gate.sizes());
  expect_layout(u, "up of gated", gate.device(), gate.scalar_type(), gate.sizes());
  return ops_of(gate).gated(activation, g, u);
}

GatedGradient gated_gradient(Activation activation, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  const StageTimer timer(Stage::kActivation);
  expect_layout(dy, "dy of gated_gradient", gate.device(), gate.scalar_type(), gate.sizes());
  expect_layout(gate, "gate of gated_gradient", gate.device(), gate.scalar_type(), gate.sizes());
  expect_layout(up, "up of gated_gradient", gate.device(), gate.scalar_type(), gate.sizes());
  return ops_of(gate).gated_gradient(activation, dy, gate, up);
}

Tensor activated(Activation activation, const Tensor& x) {
  const StageTimer timer(Stage::kActivation);
  expect_layout(x, "x of activated", x.device(), x.scalar_type(), x.sizes());
  return ops_of(x).activated(activation, x);
}

Tensor activated_gradient(Activation activation, const Tensor& dy, const Tensor& x) {
  const StageTimer timer(Stage::kActivation);
  expect_layout(dy, "dy of activated_gradient", x.device(), x.scalar_type(), x.sizes());
  expect_layout(x, "x of activated_gradient", x.device(), x.scalar_type(), x.sizes());
  return ops_of(x).activated_gradient(activation, dy, x);
}

LogitsSummary summarize_logits(const Tensor& logits) {
  expect_layout(logits, "logits of log_sum_exp", logits.device(), logits.scalar_type(), {logits.size(0), logits.size(1)});
  return ops_of(logits).summarize_logits(logits);
}

Tensor cross_entropy_into(Tensor& logits, const Tensor& target, const Tensor& weight) {
  const StageTimer timer(Stage::kLoss);
  const auto dtype = compute_dtype(logits.scalar_type());
  expect_layout(logits, "logits of head_loss", logits.device(), logits.scalar_type(), {logits.size(0), logits.size(1)});
  expect_layout(target, "target of head_loss", logits.device(), torch::kLong, {logits.size(0)});
  expect_layout(weight, "weight of head_loss", logits.device(), dtype, {logits.size(0)});
  const auto& column = ops_of(logits);
  const auto lse = column.summarize_logits(logits).log_sum_exp;
  const auto picked = logits.gather(1, target.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
  auto terms = (lse - picked) * weight;
  column.cross_entropy_gradient(logits, lse, target, weight);
  return terms;
}

}  // namespace quiver::backend
