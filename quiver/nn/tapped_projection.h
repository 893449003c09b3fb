// Watching what enters a projection, without changing anything.
#pragma once

#include <functional>
#include <utility>

#include "quiver/nn/projection.h"

namespace quiver::nn {

/// Computes as `base` does and shows `watch` what enters it: x [T, d_in] with the record that says which rows of the batch
/// these are. Threads take parts of a batch, so `watch` may be called by several at once. For passes without gradients.
class TappedProjection : public Projection {
 public:
  using Watch = std::function<void(const torch::Tensor& x, const RowRecord& record)>;

  TappedProjection(ProjectionPtr base, Watch watch) : base_(std::move(base)), watch_(std::move(watch)) {}
  torch::Tensor forward(const torch::Tensor& x) const override {
    watch_(x, {});
    return base_->forward(x);
  }
  torch::Tensor forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord& record) const override {
    watch_(x, record);
    return base_->forward_rows(x, onto, record);
  }
  torch::Tensor backward(const torch::Tensor& dy) const override { return base_->backward(dy); }
  std::int64_t in_features() const override { return base_->in_features(); }
  std::int64_t out_features() const override { return base_->out_features(); }
  torch::Tensor base_weight() const override { return base_->base_weight(); }
  torch::Device device() const override { return base_->device(); }

 private:
  ProjectionPtr base_;
  Watch watch_;
};

}  // namespace quiver::nn
