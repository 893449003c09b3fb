#include "quiver/nn/linear.h"

#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {

torch::Tensor Below::forward(const torch::Tensor& x, const torch::Tensor& onto) const {
  return linear_->forward_at(level_, x, onto, *rows_, *record_);
}

void Below::backward(const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx) const {
  linear_->backward_at(level_, dy, x, dx, *rows_, *record_);
}

Linear::Linear(MatrixPtr weight, torch::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {
  if (bias_.defined() && (bias_.dim() != 1 || bias_.size(0) != out_features() || bias_.scalar_type() != weight_->dtype())) {
    fail(ErrorKind::kMismatch, "not a linear map: weight is {} [{}, {}] and bias is {}; expected [d_out, d_in] and [d_out]",
         c10::toString(weight_->dtype()), out_features(), in_features(), tensor::describe(bias_));
  }
}

Linear Linear::with(UpdatePtr update) const {
  Linear changed = *this;
  changed.updates_.push_back(std::move(update));
  return changed;
}

Linear Linear::over(MatrixPtr weight) const {
  Linear changed = *this;
  changed.weight_ = std::move(weight);
  changed.bias_ = torch::Tensor();
  return changed;
}

Linear Linear::with(TrainedUpdate update) const {
  if (has_updates()) fail(ErrorKind::kInternal, "a trained update above {} updates that have no backward pass", updates_.size());
  Linear changed = *this;
  changed.trained_.push_back(std::move(update));
  return changed;
}

torch::Tensor Linear::forward(const torch::Tensor& x) const {
  LinearRecord record;
  return forward(x, {}, {}, record);
}

torch::Tensor Linear::forward(const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows, LinearRecord& record) const {
  const auto num_updates = trained_.size() + updates_.size();
  record.resize(num_updates);
  return forward_at(num_updates, x, onto, rows, record);
}

void Linear::backward(const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows, LinearRecord& record) const {
  backward_at(trained_.size(), dy, x, dx, rows, record);
}

torch::Tensor Linear::forward_at(std::size_t level, const torch::Tensor& x, const torch::Tensor& onto, const Rows& rows,
                                 LinearRecord& record) const {
  if (level == 0) return weight_->product(x, bias_, onto);
  const auto i = level - 1;
  const Update& update = i < trained_.size() ? *trained_[i].update : *updates_[i - trained_.size()];
  return update.forward(Below(*this, i, rows, record), x, onto, rows, record[i]);
}

void Linear::backward_at(std::size_t level, const torch::Tensor& dy, const torch::Tensor& x, torch::Tensor* dx, const Rows& rows,
                         LinearRecord& record) const {
  if (level == 0) {
    if (dx != nullptr) *dx = weight_->product_transposed(dy, *dx);
    return;
  }
  const auto i = level - 1;
  trained_[i].update->backward(Below(*this, i, rows, record), dy, x, dx, rows, record[i]);
}

void Linear::prepare_backward() const {
  if (std::ranges::none_of(trained_, [](const TrainedUpdate& trained) { return trained.update->replaces_below(); })) {
    weight_->prepare_transposed();
  }
}

void Linear::add_gradients(const LinearRecord& record) const {
  for (std::size_t i = 0; i < trained_.size(); ++i) trained_[i].update->add_gradients(record[i].gradients, *trained_[i].sink);
}

std::int64_t Linear::saved_bytes_per_row() const {
  std::int64_t bytes = 0;
  for (const auto& trained : trained_) bytes += trained.update->saved_bytes_per_row();
  return bytes;
}

}  // namespace quiver::nn
