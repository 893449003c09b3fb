#include "quiver/nn/full_weight.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/profile.h"

namespace quiver::nn {

FullWeight::FullWeight(torch::Tensor weight, torch::Tensor bias, torch::Dtype dtype)
    : weight_(std::move(weight)), bias_(std::move(bias)), dtype_(dtype) {
  update();
}

void FullWeight::update() {
  weight_copy_ = weight_.detach().to(dtype_);
  if (bias_.defined()) bias_copy_ = bias_.detach().to(dtype_);
}

torch::Tensor FullWeight::forward(const Below&, const torch::Tensor& x, const torch::Tensor& onto, const Rows&, UpdateRecord&) const {
  const StageTimer timer(Stage::kProducts);
  const auto start = !bias_.defined() ? onto : onto.defined() ? onto + bias_copy_ : bias_copy_;
  return start.defined() ? torch::addmm(start, x, weight_copy_.t()) : x.mm(weight_copy_.t());
}

void FullWeight::backward(const Below&, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows&,
                          UpdateRecord& record) const {
  const StageTimer timer(Stage::kProducts);
  record.gradients = {dy.t().mm(x).to(weight_.scalar_type())};
  if (bias_.defined()) record.gradients.push_back(dy.to(weight_.scalar_type()).sum(0));
  if (dx != nullptr) *dx = dx->defined() ? torch::addmm(*dx, dy, weight_copy_) : dy.mm(weight_copy_);
}

void FullWeight::add_gradients(const std::vector<torch::Tensor>& gradients, GradientSink& sink) const {
  for (std::size_t i = 0; i < gradients.size(); ++i) sink.sums.at(i).add_(gradients[i]);
}

}  // namespace quiver::nn
