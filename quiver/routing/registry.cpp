#include "quiver/routing/registry.h"

#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/routing/baselines.h"

namespace quiver::routing {
namespace {

struct Entry {
  const char* name;
  RouterPtr (*make)(const torch::Tensor& prototypes, const RouterOptions& options);
};

constexpr Entry kRouters[] = {
    {"arrow",
     [](const torch::Tensor& prototypes, const RouterOptions& options) -> RouterPtr {
       return std::make_shared<ArrowRouter>(prototypes, options.arrow);
     }},
    {"uniform",
     [](const torch::Tensor& prototypes, const RouterOptions&) -> RouterPtr {
       return std::make_shared<UniformRouter>(prototypes.size(0));
     }},
    {"fixed",
     [](const torch::Tensor& prototypes, const RouterOptions& options) -> RouterPtr {
       return std::make_shared<FixedRouter>(prototypes.size(0), options.fixed_adapter);
     }},
};

}  // namespace

std::vector<std::string> router_names() {
  std::vector<std::string> names;
  for (const auto& entry : kRouters) names.emplace_back(entry.name);
  return names;
}

RouterPtr make_router(std::string_view name, const torch::Tensor& prototypes, const RouterOptions& options) {
  for (const auto& entry : kRouters) {
    if (name == entry.name) return entry.make(prototypes, options);
  }
  std::string known;
  for (const auto& other : router_names()) known += (known.empty() ? "'" : ", '") + other + "'";
  fail(ErrorKind::kUsage, "no router is called '{}': there are {}", name, known);
}

}  // namespace quiver::routing
