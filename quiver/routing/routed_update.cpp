#include "quiver/routing/routed_update.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

void check(const nn::Linear& base, const std::vector<adapters::LoraPair>& pairs, const Router& router, Combine combine) {
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

RoutedUpdate::RoutedUpdate(const nn::Linear& below, const std::vector<adapters::LoraPair>& pairs, RouterPtr router, Combine combine)
    : router_(std::move(router)), combine_(combine) {
  check(below, pairs, *router_, combine_);
  adapters_ = packed(pairs, below.device());
}

void RoutedUpdate::observe(RouteObserver& observer, std::string path) {
  observer_ = &observer;
  path_ = std::move(path);
}

torch::Tensor RoutedUpdate::forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                                    nn::UpdateRecord&) const {
  const auto decision = router_->route(x, nn::row_groups(rows, x.size(0)));  // [T, k] each
  if (observer_ != nullptr) observer_->see(path_, rows, decision);
  auto y = below.forward(x, {}).contiguous();  // [T, d_out]
  backend::add_routed(adapters_, x, decision, combine_, y);
  return onto.defined() ? onto + y : y;
}

void RoutedUpdate::add_to(const torch::Tensor& all_x, std::int64_t begin, std::int64_t end, const nn::Rows& rows,
                          const torch::Tensor& all_y) const {
  const bool is_all = begin == 0 && end == all_x.size(0);
  const auto x = is_all ? all_x : all_x.narrow(0, begin, end - begin), y = is_all ? all_y : all_y.narrow(0, begin, end - begin);
  const auto decision = router_->route(x, nn::row_groups(rows, x.size(0)));
  if (observer_ != nullptr) observer_->see(path_, rows, decision);
  backend::add_routed(adapters_, x, decision, combine_, y);
}

}  // namespace quiver::routing
