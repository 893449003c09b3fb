#include "quiver/nn/matrix.h"

#include <torch/utils.h>

#include <mutex>
#include <utility>

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

class KnownProduct final : public Matrix {
 public:
  KnownProduct(torch::Tensor known, std::int64_t in_features) : known_(std::move(known)), in_(in_features) {}

  std::int64_t in_features() const override { return in_; }
  std::int64_t out_features() const override { return known_.size(1); }
  torch::Device device() const override { return known_.device(); }
  torch::Dtype dtype() const override { return known_.scalar_type(); }
  torch::Tensor product(const torch::Tensor& /*x*/, const torch::Tensor& bias, const torch::Tensor& onto) const override {
    if (bias.defined()) fail(ErrorKind::kInternal, "a known product with a bias");
    return onto.defined() ? onto + known_ : known_;
  }
  torch::Tensor product_transposed(const torch::Tensor& /*dy*/, const torch::Tensor& /*onto*/) const override {
    fail(ErrorKind::kInternal, "a known product has no backward pass");
  }
  torch::Tensor dense() const override { fail(ErrorKind::kInternal, "a known product has no dense values"); }

 private:
  torch::Tensor known_;
  std::int64_t in_;
};

}  // namespace

MatrixPtr known_product(torch::Tensor known, std::int64_t in_features) {
  return std::make_shared<KnownProduct>(std::move(known), in_features);
}

MatrixPtr make_matrix(const torch::Tensor& weight) {
  if (weight.dim() != 2) {
    fail(ErrorKind::kMismatch, "not a linear map: weight is {}; expected [d_out, d_in]", tensor::describe(weight));
  }
  return std::make_shared<FrozenWeight>(weight);
}

}  // namespace quiver::nn
