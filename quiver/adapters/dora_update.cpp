#include "quiver/adapters/dora_update.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {

DoraUpdate::DoraUpdate(const nn::Linear& below, LoraPair pair) : below_(below), lora_(below, std::move(pair)) {
  if (!lora_.pair().magnitude().defined()) fail(ErrorKind::kInternal, "a DoRA without a magnitude");
  const torch::NoGradGuard no_grad;
  const auto weight = below_.weight().dense();
  squared_weight_ = weight.to(tensor::compute_dtype(weight.scalar_type())).square().sum(1);
  const auto of_zero = below_.forward(torch::zeros({1, below_.in_features()}, weight.options()))[0];
  if (of_zero.abs().max().item<double>() > 0) bias_ = of_zero;
  update();
}

void DoraUpdate::update() {
  lora_.update();
  const torch::NoGradGuard no_grad;
  const auto& pair = lora_.pair();
  const auto dtype = squared_weight_.scalar_type();
  const auto a = pair.lora_a().to(dtype), b = pair.lora_b().to(dtype);
  const auto weight_dtype = below_.weight().dtype();
  auto products = below_.forward(a.to(weight_dtype)).to(dtype);  // A W^T [r, d_out]
  if (bias_.defined()) products -= bias_.to(dtype);
  const double s = pair.scaling();
  const auto cross = (b * products.t()).sum(1), square = (b.mm(a.mm(a.t())) * b).sum(1);
  norm_ = (squared_weight_ + 2 * s * cross + s * s * square).sqrt();
  gain_ = (pair.magnitude().to(dtype) / norm_).to(weight_dtype);
}

torch::Tensor DoraUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                                  nn::UpdateRecord& record) const {
  auto u = lora_.forward(below, x, {}, rows, record);
  if (bias_.defined()) u -= bias_;
  record.saved.push_back(u);
  auto y = u * gain_;
  if (bias_.defined()) y += bias_;
  if (onto.defined()) y += onto;
  return y;
}

void DoraUpdate::backward(const nn::Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const nn::Rows& rows,
                          nn::UpdateRecord& record) const {
  lora_.backward(below, dy * gain_, x, dx, rows, record);
  const auto dtype = norm_.scalar_type();
  record.gradients.push_back((dy.to(dtype) * record.saved[1].to(dtype)).sum(0) / norm_);
}

void DoraUpdate::add_gradients(const std::vector<torch::Tensor>& gradients, nn::GradientSink& sink) const {
  lora_.add_gradients(gradients, sink);
  sink.sums.at(2).add_(gradients.at(2));
}

std::int64_t DoraUpdate::saved_bytes_per_row() const {
  return lora_.saved_bytes_per_row() + below_.out_features() * static_cast<std::int64_t>(gain_.element_size());
}

}  // namespace quiver::adapters
