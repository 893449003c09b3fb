#include "quiver/nn/projection.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <mutex>

#include "quiver/backend/frozen_matrix.h"
#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {
namespace {

torch::Tensor sum_of(const torch::Tensor& a, const torch::Tensor& onto) { return onto.defined() ? onto + a : a; }

}  // namespace

std::vector<std::int32_t> row_groups(const RowRecord& record, std::int64_t num_rows) {
  if (record.groups == nullptr) return {};
  if (!record.rows.defined()) return {record.groups + record.first_row, record.groups + record.first_row + num_rows};
  const auto rows = record.rows.cpu();
  const auto* numbers = tensor::raw_data<std::int64_t>(rows, "rows of a RowRecord", {num_rows});
  std::vector<std::int32_t> groups;
  for (std::int64_t i = 0; i < num_rows; ++i) groups.push_back(record.groups[numbers[i]]);
  return groups;
}

struct DenseProjection::Weights {
  backend::FrozenMatrix matrix;
  torch::Tensor bias;
  std::int64_t in = 0, out = 0;
  torch::Device device = torch::kCPU;
  mutable std::once_flag transposed_once;
  mutable backend::FrozenMatrix transposed;

  void transpose() const {
    std::call_once(transposed_once, [this] { transposed = matrix.transposed(); });
  }
  /// onto + x W^T + b, where `onto` may be undefined.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& onto = {}) const {
    const StageTimer timer(Stage::kProducts);
    return matrix.product(x, bias, onto);
  }
  torch::Tensor transposed_product(const torch::Tensor& dy, const torch::Tensor& onto = {}) const {
    const StageTimer timer(Stage::kProducts);
    transpose();
    return transposed.product(dy, {}, onto);
  }
};

namespace {

/// Gives products by a frozen matrix their gradient.
template <typename Weights>
struct FrozenFunction : torch::autograd::Function<FrozenFunction<Weights>> {
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<const Weights> w) : weights(std::move(w)) {}
    std::shared_ptr<const Weights> weights;
  };
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& x, const c10::intrusive_ptr<Holder>& holder) {
    ctx->saved_data["weights"] = c10::IValue::make_capsule(holder);
    return holder->weights->product(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    const auto capsule = ctx->saved_data["weights"].toCapsule();
    return {static_cast<const Holder*>(capsule.get())->weights->transposed_product(grads[0].contiguous()), torch::Tensor()};
  }
};

}  // namespace

DenseProjection::DenseProjection(torch::Tensor weight, torch::Tensor bias) {
  if (weight.dim() != 2 ||
      (bias.defined() && (bias.dim() != 1 || bias.size(0) != weight.size(0) || bias.scalar_type() != weight.scalar_type()))) {
    fail(ErrorKind::kMismatch, "not a linear map: weight is {} and bias is {}; expected [d_out, d_in] and [d_out]",
         tensor::describe(weight), tensor::describe(bias));
  }
  auto weights = std::make_shared<Weights>();
  weights->in = weight.size(1);
  weights->out = weight.size(0);
  weights->device = weight.device();
  weights->bias = std::move(bias);
  weights->matrix = backend::FrozenMatrix(std::move(weight));
  weights_ = std::move(weights);
}

torch::Tensor DenseProjection::forward(const torch::Tensor& x) const {
  if (weights_->matrix.is_plain() || !torch::GradMode::is_enabled() || !x.requires_grad()) return weights_->product(x);
  using Function = FrozenFunction<Weights>;
  return Function::apply(x, c10::make_intrusive<typename Function::Holder>(weights_));
}

torch::Tensor Projection::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord&) const {
  return sum_of(forward(x), onto);
}

torch::Tensor Projection::backward_rows(const torch::Tensor& dy, const torch::Tensor&, const torch::Tensor& onto, bool needs_dx,
                                        RowRecord&) const {
  return needs_dx ? sum_of(backward(dy), onto) : torch::Tensor();
}

torch::Tensor DenseProjection::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, RowRecord&) const {
  return weights_->product(x, onto);
}

torch::Tensor DenseProjection::backward_rows(const torch::Tensor& dy, const torch::Tensor&, const torch::Tensor& onto, bool needs_dx,
                                             RowRecord&) const {
  return needs_dx ? weights_->transposed_product(dy, onto) : torch::Tensor();
}

void DenseProjection::prepare_backward() const { weights_->transpose(); }

torch::Tensor DenseProjection::backward(const torch::Tensor& dy) const { return weights_->transposed_product(dy); }
std::int64_t DenseProjection::in_features() const { return weights_->in; }
std::int64_t DenseProjection::out_features() const { return weights_->out; }
torch::Tensor DenseProjection::base_weight() const { return weights_->matrix.dense(); }
torch::Device DenseProjection::device() const { return weights_->device; }

}  // namespace quiver::nn
