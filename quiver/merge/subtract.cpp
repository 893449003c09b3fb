#include "quiver/merge/subtract.h"

#include <vector>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"
#include "quiver/merge/mean.h"

namespace quiver::merge {
namespace {

/// The adapter with weight 1 and each general one with -1/g.
template <typename Sum>
adapters::LoraAdapter subtracted(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> general, Sum sum) {
  if (general.empty()) {
    fail(ErrorKind::kUsage, "no general adapters to subtract from adapter '{}': give at least one", adapter.name);
  }
  std::vector<adapters::LoraAdapter> adapters = {adapter};
  adapters.insert(adapters.end(), general.begin(), general.end());
  std::vector<double> weights(adapters.size(), -1.0 / static_cast<double>(general.size()));
  weights.front() = 1;
  return renamed(sum(adapters, weights), adapter.name);
}

}  // namespace

adapters::LoraAdapter subtract_factors(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> general) {
  return subtracted(adapter, general, weighted_factors);
}

adapters::LoraAdapter subtract_products(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> general) {
  return subtracted(adapter, general, weighted_products);
}

}  // namespace quiver::merge
