#include "quiver/nn/trainable_dense.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/profile.h"

namespace quiver::nn {

TrainableDense::TrainableDense(torch::Tensor weight, torch::Dtype dtype) : weight_(std::move(weight)), dtype_(dtype) { update(); }

void TrainableDense::update() { laid_out_ = weight_.detach().to(dtype_); }

torch::Tensor TrainableDense::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord&) const {
  const StageTimer timer(Stage::kProducts);
  return onto.defined() ? torch::addmm(onto, x, laid_out_.t()) : x.mm(laid_out_.t());
}

torch::Tensor TrainableDense::backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                                            RowRecord& record) const {
  const StageTimer timer(Stage::kProducts);
  record.gradients = {dy.t().mm(x).to(weight_.scalar_type())};
  if (!needs_dx) return {};
  return onto.defined() ? torch::addmm(onto, dy, laid_out_) : dy.mm(laid_out_);
}

}  // namespace quiver::nn
