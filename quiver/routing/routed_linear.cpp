#include "quiver/routing/routed_linear.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

void check(const nn::Projection& base, const std::vector<adapters::LoraPair>& pairs, const Router& router, Combine combine) {
  if (pairs.empty()) fail(ErrorKind::kUsage, "a routed linear map without adapters: give it at least one");
  if (router.num_adapters() != static_cast<std::int64_t>(pairs.size())) {
    fail(ErrorKind::kMismatch, "the router chooses among {} adapters and there are {}", router.num_adapters(), pairs.size());
  }
  const auto& first = pairs.front();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto& pair = pairs[i];
    if (pair.in_features() != base.in_features() || pair.out_features() != base.out_features()) {
      fail(ErrorKind::kMismatch, "adapter {} has lora_a {} and lora_b {}, which do not fit a base weight [{}, {}]", i,
           tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()), base.out_features(), base.in_features());
    }
    if (combine == Combine::kParams && (pair.rank() != first.rank() || pair.scaling() != first.scaling())) {
      fail(ErrorKind::kMismatch,
           "adapter 0 has rank {} and scaling {}, adapter {} rank {} and scaling {}: parameters can be mixed only among adapters of one "
           "rank and one scaling (mix their outputs instead)",
           first.rank(), first.scaling(), i, pair.rank(), pair.scaling());
    }
  }
}

backend::RoutedAdapters packed(const std::vector<adapters::LoraPair>& pairs, torch::Device device) {
  std::vector<backend::LoraFactors> factors;
  for (const auto& pair : pairs) factors.push_back({pair.lora_a(), pair.lora_b(), pair.scaling()});
  return backend::pack_adapters(std::move(factors), device);
}

}  // namespace

RoutedLinear::RoutedLinear(nn::ProjectionPtr base, const std::vector<adapters::LoraPair>& pairs, RouterPtr router, Combine combine)
    : base_(std::move(base)), router_(std::move(router)), combine_(combine) {
  check(*base_, pairs, *router_, combine_);
  adapters_ = packed(pairs, base_->device());
}

torch::Tensor RoutedLinear::forward(const torch::Tensor& x) const { return routed(x, {}); }

torch::Tensor RoutedLinear::forward_rows(const torch::Tensor& x, const torch::Tensor& onto, nn::RowRecord& record) const {
  const auto y = routed(x, nn::row_groups(record, x.size(0)));
  return onto.defined() ? onto + y : y;
}

torch::Tensor RoutedLinear::routed(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  if (x.dim() != 2 || x.size(1) != in_features()) {
    fail(ErrorKind::kMismatch, "a routed linear map [{}, {}] cannot take x {}: expected x [T, {}]", out_features(), in_features(),
         tensor::describe(x), in_features());
  }
  if (torch::GradMode::is_enabled() && x.requires_grad()) {
    fail(ErrorKind::kUnsupported, "routed adapters are for inference: no gradient flows through them (train adapters one by one)");
  }
  const torch::NoGradGuard no_grad;
  const auto decision = router_->route(x, groups);  // [T, k] each
  auto y = base_->forward(x).contiguous();          // [T, d_out]
  backend::add_routed(adapters_, x, decision, combine_, y);
  return y;
}

torch::Tensor RoutedLinear::backward(const torch::Tensor&) const {
  fail(ErrorKind::kUnsupported, "routed adapters are for inference: they have no backward pass (train adapters one by one)");
}

}  // namespace quiver::routing
