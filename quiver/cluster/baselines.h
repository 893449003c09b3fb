// What model-based clustering is measured against: groups drawn by chance, and k-means on vectors that come from
// elsewhere (Ostapenko et al. 2024, table 2).
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/cluster/kmeans.h"
#include "quiver/cluster/mbc.h"

namespace quiver::cluster {

/// Tasks drawn into clusters.
struct RandomTasks {
  std::vector<std::string> names;    ///< sorted
  std::vector<std::int64_t> labels;  ///< cluster of names[i], numbered by first member: 0 to K - num_empty - 1
  std::int64_t num_empty = 0;        ///< clusters that no task was drawn into; they are left out

  /// The names of each cluster's members, sorted.
  std::vector<std::vector<std::string>> clusters() const { return members_of(names, labels); }
};

/// The paper's RandTask: every task joins one of K clusters, uniformly and independently of the others, so sizes vary and a cluster may
/// stay empty (a given one with probability (1 - 1/K)^T). Empty clusters have nothing to train on: they are counted and dropped. The names
/// are sorted first, so the result does not depend on their order; one draw each. Throws kUsage for K < 1 or a name that occurs twice.
RandomTasks random_tasks(std::span<const std::string> names, std::int64_t num_clusters, RandomStream& random);

/// The paper's RandExamples: the part, 0 to K - 1, of each of N examples of the joint data. Which examples share a part is drawn uniformly;
/// the sizes of the parts differ by at most 1, the first parts being the larger ones. Throws kUsage unless 1 <= K <= N.
std::vector<std::int64_t> random_examples(std::int64_t num_examples, std::int64_t num_parts, RandomStream& random);

/// The paper's Embeddings: k-means with given vectors as points, vectors [T, d] of names[i] (mean hidden states of a task's examples,
/// TF-IDF). Rows are taken as they are: scale them to unit length for the geometry of cosines. In the result `similarity` is the cosine of
/// the vectors, `inertia` and `silhouette` are those of the vectors themselves. The result does not depend on the order of the names.
/// Throws kMismatch unless there is one vector for each name, kUsage for a name that occurs twice; else as kmeans.
MbcResult cluster_vectors(std::span<const std::string> names, const torch::Tensor& vectors, const KMeansOptions& options);

}  // namespace quiver::cluster
