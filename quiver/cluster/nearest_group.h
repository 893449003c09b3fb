// Which group of adapters a new one belongs to, without clustering again.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/cluster/mbc.h"

namespace quiver::cluster {

/// How alike an adapter and a group of adapters are.
struct GroupSimilarity {
  std::string group;
  double mean = 0;              ///< of `cosines`
  std::vector<double> cosines;  ///< with each member, as given
};

/// <x, y_i> / (|x| |y_i|) for the vectors that model-based clustering compares by: sparsified factors or products, as `options` say.
/// These are the cosines of the whole vectors, not of their embeddings, which depend on all adapters. [N].
/// Takes the Gram matrix of the adapter with each other in turn, so time grows with N, not with its square. Errors as gram_of_factors.
std::vector<double> cosines_with(const adapters::LoraAdapter& adapter, std::span<const adapters::LoraAdapter> others,
                                 const MbcOptions& options);

/// The groups by the mean of their cosines, nearest first; in name order where means are equal. A group is nearest to the adapter that is
/// most like its members on average (average linkage, Sokal and Michener 1958). Throws kUsage for no groups or a group without members.
std::vector<GroupSimilarity> rank_groups(const std::map<std::string, std::vector<double>>& cosines);

/// rank_groups of the cosines with the members of each group; the first is the adapter's group.
std::vector<GroupSimilarity> nearest_groups(const adapters::LoraAdapter& adapter,
                                            const std::map<std::string, std::vector<adapters::LoraAdapter>>& groups,
                                            const MbcOptions& options);

}  // namespace quiver::cluster
