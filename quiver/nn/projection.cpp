#include "quiver/nn/projection.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <mutex>

#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {
namespace {

/// The operators of blocked products, which have no C++ function. Empty where this libtorch lacks them.
struct BlockedOperators {
  std::optional<c10::OperatorHandle> reorder = find("mkldnn::_reorder_linear_weight", "");
  std::optional<c10::OperatorHandle> linear = find("mkldnn::_linear_pointwise", "");
  std::optional<c10::OperatorHandle> linear_onto = find("mkldnn::_linear_pointwise", "binary");

  static std::optional<c10::OperatorHandle> find(const char* name, const char* overload) {
    return c10::Dispatcher::singleton().findSchema({name, overload});
  }
  static const BlockedOperators& get() {
    static const BlockedOperators operators;
    return operators;
  }
  bool all() const { return reorder && linear && linear_onto; }
};

torch::Tensor call(const std::optional<c10::OperatorHandle>& op, torch::jit::Stack stack) {
  op->callBoxed(stack);
  return stack.at(0).toTensor();
}

/// Whether this libtorch, on this CPU, multiplies by blocked weights of this kind.
bool can_block(const torch::Tensor& weight) {
  static const bool has_floats = __builtin_cpu_supports("avx512f") != 0;
  static const bool has_bfloats = __builtin_cpu_supports("avx512bf16") != 0;
  if (!weight.is_cpu() || !BlockedOperators::get().all()) return false;
  return (weight.scalar_type() == torch::kBFloat16 && has_bfloats) || (weight.scalar_type() == torch::kFloat && has_floats);
}

torch::Tensor to_blocked(const torch::Tensor& weight) {
  const torch::NoGradGuard no_grad;
  return call(BlockedOperators::get().reorder, {weight.contiguous(), c10::IValue()});
}

/// x W^T + b with W blocked, and + onto where that is defined. No gradients.
torch::Tensor blocked_linear(const torch::Tensor& x, const torch::Tensor& blocked, const torch::Tensor& bias, const torch::Tensor& onto) {
  const auto& operators = BlockedOperators::get();
  const auto bias_value = bias.defined() ? c10::IValue(bias) : c10::IValue();
  if (onto.defined()) return call(operators.linear_onto, {x, onto, blocked, bias_value, "add"});
  return call(operators.linear, {x, blocked, bias_value, "none", c10::List<std::optional<at::Scalar>>(), c10::IValue()});
}

torch::Tensor sum_of(const torch::Tensor& a, const torch::Tensor& onto) { return onto.defined() ? onto + a : a; }

}  // namespace

std::vector<std::int32_t> row_groups(const RowRecord& record, std::int64_t num_rows) {
  if (record.groups == nullptr) return {};
  if (!record.rows.defined()) return {record.groups + record.first_row, record.groups + record.first_row + num_rows};
  const auto rows = record.rows.cpu();
  std::vector<std::int32_t> groups;
  for (std::int64_t i = 0; i < num_rows; ++i) groups.push_back(record.groups[rows.const_data_ptr<std::int64_t>()[i]]);
  return groups;
}

struct DenseProjection::Weights {
  torch::Tensor plain;  // undefined where blocked is defined
  torch::Tensor blocked;
  torch::Tensor bias;
  std::int64_t in = 0, out = 0;
  torch::Device device = torch::kCPU;
  mutable std::once_flag transposed_once;
  mutable torch::Tensor blocked_transpose;

  torch::Tensor dense() const { return plain.defined() ? plain : blocked.to_dense(); }
  void transpose() const {
    std::call_once(transposed_once, [this] { blocked_transpose = to_blocked(dense().t()); });
  }
  /// onto + x W^T + b, where `onto` may be undefined.
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& onto = {}) const {
    const StageTimer timer(Stage::kProducts);
    if (blocked.defined()) {
      if (x.size(0) == 0) return x.new_empty({0, out});  // oneDNN has no products of nothing
      return blocked_linear(x, blocked, bias, onto);
    }
    return sum_of(bias.defined() ? torch::linear(x, plain, bias) : torch::linear(x, plain), onto);
  }
  torch::Tensor transposed_product(const torch::Tensor& dy, const torch::Tensor& onto = {}) const {
    const StageTimer timer(Stage::kProducts);
    if (!blocked.defined()) return sum_of(dy.matmul(plain), onto);
    if (dy.size(0) == 0) return dy.new_empty({0, in});
    transpose();
    return blocked_linear(dy, blocked_transpose, {}, onto);
  }
};

namespace {

/// Blocked products have no gradient of their own.
template <typename Weights>
struct BlockedFunction : torch::autograd::Function<BlockedFunction<Weights>> {
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
  if (can_block(weight)) {
    weights->blocked = to_blocked(weight);
  } else {
    weights->plain = std::move(weight);
  }
  weights_ = std::move(weights);
}

torch::Tensor DenseProjection::forward(const torch::Tensor& x) const {
  if (!weights_->blocked.defined() || !torch::GradMode::is_enabled() || !x.requires_grad()) return weights_->product(x);
  using Function = BlockedFunction<Weights>;
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

void DenseProjection::prepare_backward() const {
  if (weights_->blocked.defined()) weights_->transpose();
}

torch::Tensor DenseProjection::backward(const torch::Tensor& dy) const { return weights_->transposed_product(dy); }
std::int64_t DenseProjection::in_features() const { return weights_->in; }
std::int64_t DenseProjection::out_features() const { return weights_->out; }
torch::Tensor DenseProjection::base_weight() const { return weights_->dense(); }
torch::Device DenseProjection::device() const { return weights_->device; }

}  // namespace quiver::nn
