#include "quiver/adapters/dora_linear.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

torch::Dtype wide(torch::Dtype dtype) { return dtype == torch::kDouble ? torch::kDouble : torch::kFloat; }

}  // namespace

DoraLinear::DoraLinear(nn::ProjectionPtr base, LoraPair pair) : base_(base), lora_(std::move(base), std::move(pair)) {
  if (!lora_.pair().magnitude().defined()) fail(ErrorKind::kInternal, "a DoRA without a magnitude");
  const torch::NoGradGuard no_grad;
  const auto weight = base_->base_weight();
  squared_weight_ = weight.to(wide(weight.scalar_type())).square().sum(1);
  const auto of_zero = base_->forward(torch::zeros({1, in_features()}, weight.options()))[0];
  if (of_zero.abs().max().item<double>() > 0) bias_ = of_zero;
  update();
}

void DoraLinear::update() {
  lora_.update();
  const torch::NoGradGuard no_grad;
  const auto& pair = lora_.pair();
  const auto dtype = squared_weight_.scalar_type();
  const auto a = pair.lora_a().to(dtype), b = pair.lora_b().to(dtype);
  const auto weight_dtype = gain_.defined() ? gain_.scalar_type() : base_->base_weight().scalar_type();
  auto products = base_->forward(a.to(weight_dtype)).to(dtype);  // A W^T [r, d_out]
  if (bias_.defined()) products -= bias_.to(dtype);
  const double s = pair.scaling();
  const auto cross = (b * products.t()).sum(1), square = (b.mm(a.mm(a.t())) * b).sum(1);
  norm_ = (squared_weight_ + 2 * s * cross + s * s * square).sqrt();
  gain_ = (pair.magnitude().to(dtype) / norm_).to(weight_dtype);
}

torch::Tensor DoraLinear::forward(const torch::Tensor& x) const {
  const auto& pair = lora_.pair();
  const auto weight = base_->base_weight();
  const auto norm = (weight.to(wide(x.scalar_type())) + pair.delta().detach()).norm(2, 1);
  const auto gain = (pair.magnitude() / norm).to(x.scalar_type());
  const auto u = lora_.forward(x);
  return bias_.defined() ? (u - bias_) * gain + bias_ : u * gain;
}

torch::Tensor DoraLinear::backward(const torch::Tensor& dy) const { return lora_.backward(dy * gain_); }

torch::Tensor DoraLinear::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  auto u = lora_.forward_rows(x, {}, record);
  if (bias_.defined()) u -= bias_;
  record.output = u;
  auto y = u * gain_;
  if (bias_.defined()) y += bias_;
  if (onto.defined()) y += onto;
  return y;
}

torch::Tensor DoraLinear::backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                        nn::RowRecord& record) const {
  auto dx = lora_.backward_rows(dy * gain_, x, onto, needs_dx, record);
  const auto dtype = norm_.scalar_type();
  record.gradients.push_back((dy.to(dtype) * record.output.to(dtype)).sum(0) / norm_);
  return dx;
}

void DoraLinear::add_gradients(const nn::RowRecord& record) const {
  lora_.add_gradients(record);
  lora_.pair().magnitude().mutable_grad().add_(record.gradients.at(2));
}

std::int64_t DoraLinear::record_bytes() const {
  return lora_.record_bytes() + out_features() * static_cast<std::int64_t>(gain_.element_size());
}

}  // namespace quiver::adapters
