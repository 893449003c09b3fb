#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/utils.h>

#include <algorithm>
#include <optional>
#include <type_traits>

#include "quiver/backend/cpu/columns.h"
#include "quiver/backend/cpu/packed_matrix.h"
#include "quiver/backend/cpu/packed_product_isa.h"
#include "quiver/backend/row_parts.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend::cpu {
namespace {

using tensor::CpuIsa;
using tensor::mutable_trusted_data;
using tensor::trusted_data;

constexpr std::int64_t kMultipliesAtOnce = 1 << 18;  // the least that is worth another thread

std::int64_t width_of_panels(CpuIsa isa) {
  std::int64_t width = 0;
  QUIVER_ON_ISA(isa, width = kernel, panel_width);
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

Tensor call(const std::optional<c10::OperatorHandle>& op, torch::jit::Stack stack) {
  op->callBoxed(stack);
  return stack.at(0).toTensor();
}

/// Whether this libtorch, on this CPU, multiplies by blocked weights of `dtype`. oneDNN chooses its instructions itself.
bool can_block(torch::Dtype dtype) {
  static const bool has_floats = __builtin_cpu_supports("avx512f") != 0;
  static const bool has_bfloats = __builtin_cpu_supports("avx512bf16") != 0;
  return BlockedOperators::get().all() && (dtype == torch::kBFloat16 ? has_bfloats : has_floats);
}

/// oneDNN's blocked layout.
class BlockedMatrix final : public MatrixLayout {
 public:
  explicit BlockedMatrix(const Tensor& weight)
      : num_outputs_(weight.size(0)), blocked_(call(BlockedOperators::get().reorder, {weight.contiguous(), c10::IValue()})) {}

  Tensor product(const Tensor& x, const Tensor& bias, const Tensor& onto) const override {
    if (x.size(0) == 0) return x.new_empty({0, num_outputs_});  // oneDNN has no products of nothing
    const auto& operators = BlockedOperators::get();
    const auto bias_value = bias.defined() ? c10::IValue(bias) : c10::IValue();
    if (onto.defined()) return call(operators.linear_onto, {x, onto, blocked_, bias_value, "add"});
    return call(operators.linear, {x, blocked_, bias_value, "none", c10::List<std::optional<at::Scalar>>(), c10::IValue()});
  }
  Tensor dense() const override { return blocked_.to_dense(); }

 private:
  std::int64_t num_outputs_;
  Tensor blocked_;
};

template <CpuIsa kIsa, typename T>
std::shared_ptr<const MatrixLayout> lay_out(const Tensor& weight) {
  if (can_block(weight.scalar_type())) return std::make_shared<BlockedMatrix>(weight);
  if constexpr (kIsa == CpuIsa::kV3 && std::is_same_v<T, float>) return std::make_shared<PackedMatrix>(weight, kIsa);
  return reference_ops().lay_out(weight);
}

}  // namespace

PackedMatrix::PackedMatrix(const Tensor& weight, CpuIsa isa)
    : isa_(isa),
      num_outputs_(weight.size(0)),
      depth_(weight.size(1)),
      width_(width_of_panels(isa)),
      panels_(torch::empty({divide_up(num_outputs_, width_), depth_, width_}, torch::kFloat)) {
  const bool is_transposed = !weight.is_contiguous() && weight.t().is_contiguous();  // W^T is packed without a copy
  const auto stored = is_transposed ? weight.t() : weight.contiguous();
  const auto row_stride = is_transposed ? 1 : depth_, column_stride = is_transposed ? num_outputs_ : 1;
  const auto* w = tensor::raw_data<float>(stored, "weight of PackedMatrix", stored.sizes());
  auto* panels = mutable_trusted_data<float>(panels_);
  at::parallel_for(0, panels_.size(0), 8, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(isa_, kernel, pack_panels, begin, end, num_outputs_, depth_, w, row_stride, column_stride, panels);
  });
}

Tensor PackedMatrix::product(const Tensor& x, const Tensor& bias, const Tensor& onto) const {
  const auto rows = x.contiguous();
  const auto count = x.size(0);
  auto y = torch::empty({count, num_outputs_}, x.options().requires_grad(false));
  const kernel::PackedProduct product{.num_rows = count,
                                      .depth = depth_,
                                      .num_outputs = num_outputs_,
                                      .x = trusted_data<float>(rows),
                                      .panels = trusted_data<float>(panels_),
                                      .bias = bias.defined() ? trusted_data<float>(bias) : nullptr,
                                      .onto = onto.defined() ? trusted_data<float>(onto) : nullptr,
                                      .y = mutable_trusted_data<float>(y)};
  if (count == 0) return y;
  const auto grain = std::max<std::int64_t>(1, kMultipliesAtOnce / std::max<std::int64_t>(1, count * depth_ * width_));
  at::parallel_for(0, panels_.size(0), grain,
                   [&](std::int64_t begin, std::int64_t end) { QUIVER_ON_ISA(isa_, kernel, packed_product, begin, end, product); });
  return y;
}

Tensor PackedMatrix::dense() const {
  return panels_.transpose(1, 2).reshape({panels_.size(0) * width_, depth_}).narrow(0, 0, num_outputs_).contiguous();
}

void add_frozen_matrix(Ops& column, CpuIsa isa, torch::Dtype dtype) {
  with_column(isa, dtype, [&]<CpuIsa kIsa, typename T>() { column.lay_out = lay_out<kIsa, T>; });
}

}  // namespace quiver::backend::cpu
