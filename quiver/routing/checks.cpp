#include "quiver/routing/checks.h"

#include <torch/utils.h>

#include <cmath>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::routing {
namespace {

using adapters::LoraAdapter;

/// Throws if `having` adapts a path that `other` does not.
void check_covers(const LoraAdapter& having, const LoraAdapter& other) {
  for (const auto& [path, pair] : having.pairs) {
    if (other.pairs.contains(path)) continue;
    fail(ErrorKind::kMismatch,
         "adapter '{}' adapts '{}' and adapter '{}' does not: adapters can be routed together only if they adapt the same projections",
         having.name, path, other.name);
  }
}

}  // namespace

void check_alike(std::span<const LoraAdapter> adapters) {
  if (adapters.empty()) fail(ErrorKind::kUsage, "no adapters to route to: the library is empty");
  const auto& first = adapters.front();
  for (const auto& other : adapters) {
    adapters::refuse_more_than_lora(other, "route by");
    adapters::refuse_not_finite(other, "route by");
    check_covers(first, other);
    check_covers(other, first);
    for (const auto& [path, pair] : first.pairs) {
      const auto& twin = other.pairs.at(path);
      if (pair.in_features() == twin.in_features() && pair.out_features() == twin.out_features()) continue;
      fail(ErrorKind::kMismatch,
           "adapters '{}' and '{}' do not fit one base model: at '{}' the first maps {} to {} features and the second {} to {}", first.name,
           other.name, path, pair.in_features(), pair.out_features(), twin.in_features(), twin.out_features());
    }
  }
}

std::vector<std::string> names_of(std::span<const LoraAdapter> adapters) {
  std::vector<std::string> names;
  for (const auto& adapter : adapters) names.push_back(adapter.name);
  return names;
}

torch::Tensor finite_vectors(const torch::Tensor& vectors, const std::string& path, std::span<const std::string> adapters) {
  if (tensor::all_finite(vectors)) return vectors;
  for (std::int64_t n = 0; n < vectors.size(0); ++n) {
    if (tensor::all_finite(vectors[n])) continue;
    fail(ErrorKind::kMismatch, "what adapter '{}' is routed by at '{}' is not finite: leave the adapter out, or train it again",
         adapters[static_cast<std::size_t>(n)], path);
  }
  return vectors;
}

CheckedRouter::CheckedRouter(RouterPtr router, std::string path, std::vector<std::string> adapters)
    : router_(std::move(router)), path_(std::move(path)), adapters_(std::move(adapters)) {}

RoutingDecision CheckedRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  auto decision = router_->route(x, groups);
  if (!decision.weight.is_cpu()) return decision;
  const auto weight = decision.weight.to(torch::kFloat).contiguous();
  const auto weights = tensor::elements<float>(weight, "weights of a decision");
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (std::isfinite(weights[i])) continue;
    const auto token = static_cast<std::int64_t>(i) / weight.size(1);
    if (!tensor::all_finite(x[token])) return decision;                  // the pass's logits are not finite either, and it knows the prompt
    const auto adapter = decision.index[token][0].item<std::int64_t>();  // that of the largest score
    fail(ErrorKind::kMismatch, "the routing score of adapter '{}' at '{}' is not finite: leave the adapter out, or train it again",
         adapters_.at(static_cast<std::size_t>(adapter)), path_);
  }
  return decision;
}

}  // namespace quiver::routing
