#include "quiver/lora/subtract.h"

#include <vector>

#include "quiver/base/error.h"
#include "quiver/lora/merge.h"

namespace quiver::lora {
namespace {

/// The adapter with weight 1 and each general one with -1/g.
template <typename Sum>
LoraAdapter subtracted(const LoraAdapter& adapter, std::span<const LoraAdapter> general, Sum sum) {
  if (general.empty()) {
    fail(ErrorKind::kUsage, "no general adapters to subtract from adapter '{}': give at least one", adapter.name);
  }
  std::vector<LoraAdapter> adapters = {adapter};
  adapters.insert(adapters.end(), general.begin(), general.end());
  std::vector<double> weights(adapters.size(), -1.0 / static_cast<double>(general.size()));
  weights.front() = 1;
  auto result = sum(adapters, weights);
  result.name = adapter.name;
  return result;
}

}  // namespace

LoraAdapter subtract_factors(const LoraAdapter& adapter, std::span<const LoraAdapter> general) {
  return subtracted(adapter, general, weighted_factors);
}

LoraAdapter subtract_products(const LoraAdapter& adapter, std::span<const LoraAdapter> general) {
  return subtracted(adapter, general, weighted_products);
}

}  // namespace quiver::lora
