#include "quiver/routing/attach.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <memory>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/routing/checks.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

using adapters::LoraAdapter;

/// RoutedUpdate checks the same, but knows neither names nor paths.
void check_fits(const nn::LinearMap& linears, std::span<const LoraAdapter> adapters, Combine combine) {
  check_alike(adapters);
  const auto& first = adapters.front();
  for (const auto& [path, pair] : first.pairs) {
    const auto found = linears.find(path);
    if (found == linears.end()) {
      fail(ErrorKind::kMismatch, "adapter '{}' adapts '{}', which the model does not have (was it trained on another base model?)",
           first.name, path);
    }
    const auto& base = found->second;
    if (pair.in_features() != base.in_features() || pair.out_features() != base.out_features()) {
      fail(ErrorKind::kMismatch,
           "adapter '{}' maps {} to {} features at '{}' and the model {} to {} (was it trained on another base model?)", first.name,
           pair.in_features(), pair.out_features(), path, base.in_features(), base.out_features());
    }
    for (const auto& other : adapters) {
      const auto& twin = other.pairs.at(path);
      if (combine != Combine::kParams || (twin.rank() == pair.rank() && twin.scaling() == pair.scaling())) continue;
      fail(ErrorKind::kMismatch,
           "at '{}' adapter '{}' has rank {} and scaling {}, adapter '{}' rank {} and scaling {}: parameters can be mixed only among "
           "adapters of one rank and one scaling (mix their outputs instead)",
           path, first.name, pair.rank(), pair.scaling(), other.name, twin.rank(), twin.scaling());
    }
  }
}

torch::Tensor prototypes_at(const PrototypeMap& stored, const std::string& path, std::span<const std::string> names, std::int64_t d_in) {
  const auto num_adapters = static_cast<std::int64_t>(names.size());
  const auto found = stored.find(path);
  if (found == stored.end()) {
    fail(ErrorKind::kNotFound, "no prototypes for '{}': make them anew, of the adapters that are to be routed", path);
  }
  const auto& tensor = found->second;
  if (!tensor.defined() || tensor.dim() != 2 || tensor.size(0) != num_adapters || tensor.size(1) != d_in) {
    fail(ErrorKind::kMismatch, "the prototypes for '{}' are {} and the adapters need [{}, {}]: make them anew", path,
         tensor::describe(tensor), num_adapters, d_in);
  }
  return finite_vectors(tensor, path, names);
}

}  // namespace

PrototypeMap adapter_prototypes(const LoraAdapter& adapter) {
  check_alike(std::span(&adapter, 1));
  PrototypeMap result;
  for (const auto& [path, pair] : adapter.pairs) result.emplace(path, arrow_prototype(pair));
  return result;
}

PrototypeMap prototypes(std::span<const LoraAdapter> adapters) {
  check_alike(adapters);
  const auto count = static_cast<std::int64_t>(adapters.size());
  std::vector<PrototypeMap> parts(adapters.size());
  at::parallel_for(0, count, /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      parts[static_cast<std::size_t>(i)] = adapter_prototypes(adapters[static_cast<std::size_t>(i)]);
    }
  });
  PrototypeMap result;
  for (const auto& [path, pair] : adapters.front().pairs) {
    std::vector<torch::Tensor> rows;
    for (const auto& part : parts) rows.push_back(part.at(path));
    result.emplace(path, torch::stack(rows));
  }
  return result;
}

void attach_routers(nn::LinearMap& linears, std::span<const LoraAdapter> adapters, const std::map<std::string, RouterPtr>& routers,
                    Combine combine, RoutingRecorder* recorder, RouteObserver* observer) {
  check_fits(linears, adapters, combine);
  auto attached = linears;
  const auto names = names_of(adapters);
  for (const auto& [path, first] : adapters.front().pairs) {
    const auto found = routers.find(path);
    if (found == routers.end() || found->second == nullptr) fail(ErrorKind::kNotFound, "no router for '{}'", path);
    RouterPtr router = std::make_shared<CheckedRouter>(found->second, path, names);
    if (recorder != nullptr) router = std::make_shared<RecordingRouter>(std::move(router), path, recorder);
    std::vector<adapters::LoraPair> pairs;
    for (const auto& adapter : adapters) pairs.push_back(adapter.pairs.at(path));
    auto& linear = attached.at(path);
    const auto update = std::make_shared<RoutedUpdate>(linear, std::move(pairs), std::move(router), combine);
    if (observer != nullptr) update->observe(*observer, path);
    linear = linear.with(nn::UpdatePtr(update));
  }
  linears = std::move(attached);
}

void attach_routed(nn::LinearMap& linears, std::span<const LoraAdapter> adapters, const ArrowOptions& options, Combine combine,
                   RoutingRecorder* recorder, const PrototypeMap* stored) {
  check_fits(linears, adapters, combine);
  const auto computed = stored == nullptr ? prototypes(adapters) : PrototypeMap{};
  const auto names = names_of(adapters);
  std::map<std::string, RouterPtr> routers;
  for (const auto& [path, pair] : adapters.front().pairs) {
    const auto& rows = prototypes_at(stored == nullptr ? computed : *stored, path, names, pair.in_features());
    const auto device = linears.at(path).device();
    routers.emplace(path, std::make_shared<ArrowRouter>(rows.to(device), options));
  }
  attach_routers(linears, adapters, routers, combine, recorder);
}

}  // namespace quiver::routing
