// A linear map whose own weight and bias are trained.
#pragma once

#include <torch/types.h>

#include "quiver/nn/update.h"

namespace quiver::nn {

/// y = x W^T + b with trained W [d_out, d_in] and b [d_out], float32 (float64), in place of the map below. Products are computed in
/// `dtype`, of copies that update() makes.
class FullWeight final : public TrainableUpdate {
 public:
  /// Shares W and b with the caller, who trains them. An undefined b is none.
  FullWeight(torch::Tensor weight, torch::Tensor bias, torch::Dtype dtype);

  torch::Tensor forward(const Below& below, const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows,
                        UpdateRecord& record) const override;
  /// The gradients: dy^T x, and where there is a bias the sum of dy.
  void backward(const Below& below, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows,
                UpdateRecord& record) const override;
  void add_gradients(const std::vector<torch::Tensor>& gradients, GradientSink& sink) const override;
  std::int64_t saved_bytes_per_row() const override { return 0; }
  bool replaces_below() const override { return true; }
  /// Takes over the present values. Call it after they change and before the next pass.
  void update();

 private:
  torch::Tensor weight_, bias_;
  torch::Tensor weight_copy_, bias_copy_;
  torch::Dtype dtype_;
};

}  // namespace quiver::nn
