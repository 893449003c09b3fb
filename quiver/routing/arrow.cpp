#include "quiver/routing/arrow.h"

#include <torch/utils.h>

#include <tuple>

#include "quiver/base/error.h"
#include "quiver/routing/choice.h"
#include "quiver/routing/directions.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
torch::Tensor arrow_prototype(const adapters::LoraPair& pair) { return right_singular(pair).vectors[0].to(torch::kFloat).contiguous(); }

ArrowRouter::ArrowRouter(const torch::Tensor& prototypes, const ArrowOptions& options, const Calibration& calibration,
                         std::shared_ptr<const GroupTable> bias)
    : options_(options), bias_(std::move(bias)) {
  if (!prototypes.defined() || prototypes.dim() != 2 || !prototypes.is_floating_point() || prototypes.numel() == 0) {
    fail(ErrorKind::kMismatch, "not Arrow prototypes: {}; expected a floating matrix [N, d_in], a row for each adapter",
         tensor::describe(prototypes));
  }
  prototypes_ = backend::pack_prototypes(prototypes);
  check_choice(options.top_k, options.temperature, num_adapters());
  std::tie(scale_, shift_) = affine_of(calibration, num_adapters());
  check_bias(bias_.get(), num_adapters());
}

RoutingDecision ArrowRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  const auto width = prototypes().size(1);
  if (x.dim() != 2 || x.size(1) != width) {
    fail(ErrorKind::kMismatch, "cannot route x {} by prototypes {}: expected x [T, {}]", tensor::describe(x),
         tensor::describe(prototypes()), width);
  }
  const torch::NoGradGuard no_grad;
  const auto rows = bias_ == nullptr ? GroupTable::Rows() : bias_->rows();  // these stay while the table changes
  const std::span<const float> bias(rows.data(), static_cast<std::size_t>(rows.size() * num_adapters()));
  return backend::route(prototypes_, x, options_.top_k, options_.temperature, {scale_, shift_, bias, groups});
}

}  // namespace quiver::routing
