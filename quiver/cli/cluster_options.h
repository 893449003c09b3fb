// The options of model-based clustering.
#pragma once

#include <string>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/cluster/mbc.h"

namespace quiver::cli {

struct ClusterArguments {
  cluster::MbcOptions mbc;
  std::string similarity = "factors";

  cluster::MbcOptions resolve(std::uint64_t seed) const {
    auto resolved = mbc;
    resolved.seed = seed;
    if (similarity != "factors" && similarity != "products") {
      fail(ErrorKind::kUsage, "--similarity '{}' is not one of factors, products", similarity);
    }
    resolved.similarity = similarity == "factors" ? cluster::Similarity::kFactors : cluster::Similarity::kProducts;
    return resolved;
  }
};

inline void add_cluster_options(CLI::App& command, ClusterArguments& arguments) {
  command.add_option("--num-clusters", arguments.mbc.num_clusters, "K of k-means")->check(at_least(1));
  command.add_option("--sparsity", arguments.mbc.sparsity, "Quantile of |x| up to which an adapter's entries count as 0")
      ->check(between(0, 1));
  command.add_option("--svd-components", arguments.mbc.svd_components, "Dimensions of the embedding, at most adapters - 1")
      ->check(at_least(1));
  command.add_option("--restarts", arguments.mbc.restarts, "Of k-means")->check(at_least(1));
  command.add_option("--similarity", arguments.similarity, "Compare adapters by their factors (the paper) or by their products B A");
}

}  // namespace quiver::cli
