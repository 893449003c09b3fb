// A linear map whose weight is trained itself.
#pragma once

#include <torch/types.h>

#include "quiver/nn/projection.h"

namespace quiver::nn {

/// y = x W^T with a trained W [d_out, d_in], float32 (float64); products are computed in `dtype`, of a copy that update() makes.
class TrainableDense : public Projection {
 public:
  /// Shares W with the caller, who trains it.
  TrainableDense(torch::Tensor weight, torch::Dtype dtype);

  torch::Tensor forward(const torch::Tensor& x) const override { return x.matmul(weight_.to(x.scalar_type()).t()); }
  torch::Tensor backward(const torch::Tensor& dy) const override { return dy.mm(laid_out_); }
  bool has_parameters() const override { return true; }
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord& record) const override;
  torch::Tensor backward_rows(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& onto, bool needs_dx,
                              RowRecord& record) const override;
  void update() override;
  /// To W.grad(), which the owner must have defined.
  void add_gradients(const RowRecord& record) const override { weight_.mutable_grad().add_(record.gradients.at(0)); }
  std::int64_t in_features() const override { return weight_.size(1); }
  std::int64_t out_features() const override { return weight_.size(0); }
  torch::Tensor base_weight() const override { return weight_.detach(); }
  torch::Device device() const override { return weight_.device(); }

 private:
  torch::Tensor weight_, laid_out_;
  torch::Dtype dtype_;
};

}  // namespace quiver::nn
