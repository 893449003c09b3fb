#include "quiver/routing/baselines.h"

#include <torch/utils.h>

#include "quiver/base/error.h"

namespace quiver::routing {

UniformRouter::UniformRouter(std::int64_t num_adapters) : num_adapters_(num_adapters) {
  if (num_adapters < 1) fail(ErrorKind::kUsage, "a router over {} adapters: there must be at least 1", num_adapters);
}

RoutingDecision UniformRouter::decide(const torch::Tensor& x, std::span<const std::int32_t>) const {
  const auto all = torch::arange(num_adapters_, torch::TensorOptions(torch::kLong).device(x.device()));
  return {all.expand({x.size(0), num_adapters_}).contiguous(),
          torch::full({x.size(0), num_adapters_}, 1.0 / static_cast<double>(num_adapters_),
                      torch::TensorOptions(torch::kFloat).device(x.device()))};
}

FixedRouter::FixedRouter(std::int64_t num_adapters, std::int64_t adapter) : num_adapters_(num_adapters), adapter_(adapter) {
  if (adapter < 0 || adapter >= num_adapters) {
    fail(ErrorKind::kUsage, "adapter {} of a library of {} adapters: it must be in [0, {})", adapter, num_adapters, num_adapters);
  }
}

RoutingDecision FixedRouter::decide(const torch::Tensor& x, std::span<const std::int32_t>) const {
  return {torch::full({x.size(0), 1}, adapter_, torch::TensorOptions(torch::kLong).device(x.device())),
          torch::ones({x.size(0), 1}, torch::TensorOptions(torch::kFloat).device(x.device()))};
}

}  // namespace quiver::routing
