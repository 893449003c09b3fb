#include "quiver/backend/frozen_matrix.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/backend/table.h"
#include "quiver/base/error.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {

FrozenMatrix::FrozenMatrix(const Tensor& weight) : FrozenMatrix(weight, nullptr) {
  const torch::NoGradGuard no_grad;
  layout_ = ops_of(weight).lay_out(weight);
}

FrozenMatrix::FrozenMatrix(const Tensor& weight, std::shared_ptr<const MatrixLayout> layout)
    : num_outputs_(weight.size(0)),
      depth_(weight.size(1)),
      device_(weight.device()),
      dtype_(weight.scalar_type()),
      layout_(std::move(layout)) {}

Tensor FrozenMatrix::product(const Tensor& x, const Tensor& bias, const Tensor& onto) const {
  if (x.dim() != 2 || x.size(1) != depth_ || x.scalar_type() != dtype_) {
    fail(ErrorKind::kMismatch, "a product of {} by a matrix of {} to {} features; expected [T, {}] {}", tensor::describe(x), depth_,
         num_outputs_, depth_, c10::toString(dtype_));
  }
  const auto shift = bias.defined() ? bias.contiguous() : bias, start = onto.defined() ? onto.contiguous() : onto;
  if (shift.defined()) tensor::expect_layout(shift, "bias of a product", device_, dtype_, {num_outputs_});
  if (start.defined()) tensor::expect_layout(start, "onto of a product", device_, dtype_, {x.size(0), num_outputs_});
  return layout_->product(x, shift, start);
}

FrozenMatrix FrozenMatrix::transposed() const { return FrozenMatrix(dense().t()); }

}  // namespace quiver::backend
