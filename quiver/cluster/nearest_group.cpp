#include "quiver/cluster/nearest_group.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "quiver/base/error.h"

namespace quiver::cluster {

std::vector<double> cosines_with(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> others,
                                 const MbcOptions& options) {
  std::vector<double> cosines;
  for (const auto& other : others) {
    const std::vector<adapters::LoraAdapter> both = {adapter, other};  // copies share storage
    const auto gram = options.similarity == Similarity::kFactors ? gram_of_factors(both, options.sparsity) : gram_of_products(both);
    const auto g = gram.accessor<double, 2>();
    cosines.push_back(g[0][1] / std::sqrt(g[0][0] * g[1][1]));
  }
  return cosines;
}

std::vector<GroupSimilarity> rank_groups(const std::map<std::string, std::vector<double>>& cosines) {
  if (cosines.empty()) fail(ErrorKind::kUsage, "there are no groups to choose from");
  std::vector<GroupSimilarity> ranked;
  for (const auto& [group, values] : cosines) {
    if (values.empty()) fail(ErrorKind::kUsage, "group '{}' has no members to compare with", group);
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    ranked.push_back({.group = group, .mean = sum / static_cast<double>(values.size()), .cosines = values});
  }
  std::ranges::stable_sort(ranked, std::greater(), &GroupSimilarity::mean);
  return ranked;
}

std::vector<GroupSimilarity> nearest_groups(const adapters::LoraAdapter& adapter,
                                            const std::map<std::string, std::vector<adapters::LoraAdapter>>& groups,
                                            const MbcOptions& options) {
  std::map<std::string, std::vector<double>> cosines;
  for (const auto& [group, members] : groups) cosines[group] = cosines_with(adapter, members, options);
  return rank_groups(cosines);
}

}  // namespace quiver::cluster
