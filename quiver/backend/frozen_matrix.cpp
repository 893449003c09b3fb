#include "quiver/backend/frozen_matrix.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "quiver/backend/cpu/packed_product_isa.h"
#include "quiver/backend/row_parts.h"
#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

using tensor::mutable_raw_data;
using tensor::raw_data;

constexpr std::int64_t kMultipliesAtOnce = 1 << 18;  // the least that is worth another thread

std::int64_t width_of_panels() {
  std::int64_t width = 0;
  QUIVER_ON_CPU(width = kernel, panel_width);
  return width;
}

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

bool can_pack(const torch::Tensor& weight) {
  return weight.is_cpu() && weight.scalar_type() == torch::kFloat && tensor::cpu_isa() == tensor::CpuIsa::kV3;
}

torch::Tensor blocked_product(const torch::Tensor& x, const torch::Tensor& blocked, const torch::Tensor& bias, const torch::Tensor& onto) {
  const auto& operators = BlockedOperators::get();
  const auto bias_value = bias.defined() ? c10::IValue(bias) : c10::IValue();
  if (onto.defined()) return call(operators.linear_onto, {x, onto, blocked, bias_value, "add"});
  return call(operators.linear, {x, blocked, bias_value, "none", c10::List<std::optional<at::Scalar>>(), c10::IValue()});
}

}  // namespace

PackedMatrix::PackedMatrix(const torch::Tensor& weight)
    : num_outputs_(weight.size(0)),
      depth_(weight.size(1)),
      width_(width_of_panels()),
      panels_(torch::empty({divide_up(num_outputs_, width_), depth_, width_}, torch::kFloat)) {
  const bool is_transposed = !weight.is_contiguous() && weight.t().is_contiguous();  // W^T is packed without a copy
  const auto stored = is_transposed ? weight.t() : weight.contiguous();
  const auto row_stride = is_transposed ? 1 : depth_, column_stride = is_transposed ? num_outputs_ : 1;
  const auto* w = raw_data<float>(stored, "weight of PackedMatrix", stored.sizes());
  auto* panels = mutable_raw_data<float>(panels_, "panels of PackedMatrix", panels_.sizes());
  at::parallel_for(0, panels_.size(0), 8, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_CPU(kernel, pack_panels, begin, end, num_outputs_, depth_, w, row_stride, column_stride, panels);
  });
}

torch::Tensor PackedMatrix::product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const {
  if (x.dim() != 2 || x.size(1) != depth_ || x.scalar_type() != torch::kFloat) {
    fail(ErrorKind::kMismatch, "a product of {} by a matrix of {} to {} features; expected [T, {}] float32", tensor::describe(x), depth_,
         num_outputs_, depth_);
  }
  const auto rows = x.contiguous(), start = onto.defined() ? onto.contiguous() : onto, shift = bias.defined() ? bias.contiguous() : bias;
  const auto count = x.size(0);
  auto y = torch::empty({count, num_outputs_}, x.options().requires_grad(false));
  const kernel::PackedProduct product{
      .num_rows = count,
      .depth = depth_,
      .num_outputs = num_outputs_,
      .x = raw_data<float>(rows, "x of a packed product", {count, depth_}),
      .panels = raw_data<float>(panels_, "panels of a packed product", panels_.sizes()),
      .bias = bias.defined() ? raw_data<float>(shift, "bias of a packed product", {num_outputs_}) : nullptr,
      .onto = onto.defined() ? raw_data<float>(start, "onto of a packed product", {count, num_outputs_}) : nullptr,
      .y = mutable_raw_data<float>(y, "result of a packed product", {count, num_outputs_})};
  if (x.size(0) == 0) return y;
  const auto grain = std::max<std::int64_t>(1, kMultipliesAtOnce / std::max<std::int64_t>(1, x.size(0) * depth_ * width_));
  at::parallel_for(0, panels_.size(0), grain,
                   [&](std::int64_t begin, std::int64_t end) { QUIVER_ON_CPU(kernel, packed_product, begin, end, product); });
  return y;
}

torch::Tensor PackedMatrix::dense() const {
  return panels_.transpose(1, 2).reshape({panels_.size(0) * width_, depth_}).narrow(0, 0, num_outputs_).contiguous();
}

FrozenMatrix::FrozenMatrix(torch::Tensor weight) : num_outputs_(weight.size(0)) {
  const torch::NoGradGuard no_grad;
  if (can_block(weight)) {
    blocked_ = call(BlockedOperators::get().reorder, {weight.contiguous(), c10::IValue()});
  } else if (can_pack(weight)) {
    packed_ = std::make_shared<PackedMatrix>(weight);
  } else {
    plain_ = std::move(weight);
  }
}

torch::Tensor FrozenMatrix::product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const {
  if (packed_ != nullptr) return packed_->product(x, bias, onto);
  if (blocked_.defined()) {
    if (x.size(0) == 0) return x.new_empty({0, num_outputs_});  // oneDNN has no products of nothing
    return blocked_product(x, blocked_, bias, onto);
  }
  const auto y = bias.defined() ? torch::linear(x, plain_, bias) : torch::linear(x, plain_);
  return onto.defined() ? onto + y : y;
}

FrozenMatrix FrozenMatrix::transposed() const { return FrozenMatrix(dense().t()); }

torch::Tensor FrozenMatrix::dense() const {
  if (packed_ != nullptr) return packed_->dense();
  return plain_.defined() ? plain_ : blocked_.to_dense();
}

}  // namespace quiver::backend
