#include "quiver/nn/matrix.h"

#include <torch/utils.h>

#include <mutex>

#include "quiver/backend/frozen_matrix.h"
#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {
namespace {

/// W, and once a backward pass has asked for it W^T, each in one layout.
class FrozenWeight final : public Matrix {
 public:
  explicit FrozenWeight(const torch::Tensor& weight)
      : in_(weight.size(1)), out_(weight.size(0)), device_(weight.device()), dtype_(weight.scalar_type()), matrix_(weight) {}

  std::int64_t in_features() const override { return in_; }
  std::int64_t out_features() const override { return out_; }
  torch::Device device() const override { return device_; }
  torch::Dtype dtype() const override { return dtype_; }
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const override {
    const StageTimer timer(Stage::kProducts);
    return matrix_.product(x, bias, onto);
  }
  torch::Tensor product_transposed(const torch::Tensor& dy, const torch::Tensor& onto) const override {
    const StageTimer timer(Stage::kProducts);
    prepare_transposed();
    return transposed_.product(dy, {}, onto);
  }
  void prepare_transposed() const override {
    std::call_once(transposed_once_, [this] { transposed_ = matrix_.transposed(); });
  }
  torch::Tensor dense() const override { return matrix_.dense(); }

 private:
  std::int64_t in_, out_;
  torch::Device device_;
  torch::Dtype dtype_;
  backend::FrozenMatrix matrix_;
  mutable std::once_flag transposed_once_;
  mutable backend::FrozenMatrix transposed_;
};

}  // namespace

MatrixPtr make_matrix(const torch::Tensor& weight) {
  if (weight.dim() != 2) {
    fail(ErrorKind::kMismatch, "not a linear map: weight is {}; expected [d_out, d_in]", tensor::describe(weight));
  }
  return std::make_shared<FrozenWeight>(weight);
}

}  // namespace quiver::nn
