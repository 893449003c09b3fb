#include "quiver/cluster/baselines.h"

#include <torch/utils.h>

#include <algorithm>
#include <numeric>

#include "quiver/base/error.h"
#include "quiver/cluster/partition.h"
#include "quiver/tensor/tensor.h"

namespace quiver::cluster {

RandomTasks random_tasks(std::span<const std::string> names, std::int64_t num_clusters, RandomStream& random) {
  if (num_clusters < 1) fail(ErrorKind::kUsage, "num_clusters is {}: tasks need at least 1 cluster to be drawn into", num_clusters);
  RandomTasks result;
  for (const auto i : order_by_name(names, "tasks")) result.names.push_back(names[i]);
  for (std::size_t i = 0; i < result.names.size(); ++i) {
    result.labels.push_back(static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(num_clusters))));
  }
  result.labels = canonical_labels(result.labels);
  const auto num_used = result.labels.empty() ? 0 : *std::max_element(result.labels.begin(), result.labels.end()) + 1;
  result.num_empty = num_clusters - num_used;
  return result;
}

std::vector<std::int64_t> random_examples(std::int64_t num_examples, std::int64_t num_parts, RandomStream& random) {
  if (num_parts < 1 || num_parts > num_examples) {
    fail(ErrorKind::kUsage, "{} examples cannot be split into {} parts: num_parts must be at least 1 and at most the number of examples",
         num_examples, num_parts);
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(num_examples));
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  std::vector<std::int64_t> parts(order.size());
  for (std::int64_t i = 0; i < num_examples; ++i) {
    parts[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = i % num_parts;
  }
  return parts;
}

MbcResult cluster_vectors(std::span<const std::string> names, const torch::Tensor& vectors, const KMeansOptions& options) {
  if (vectors.dim() != 2 || vectors.size(0) != static_cast<std::int64_t>(names.size())) {
    fail(ErrorKind::kMismatch, "{} names do not fit vectors {}: there must be one row for each name", names.size(),
         tensor::describe(vectors));
  }
  const torch::NoGradGuard no_grad;
  MbcResult result;
  std::vector<std::int64_t> order;
  for (const auto i : order_by_name(names, "vectors")) {
    result.names.push_back(names[i]);
    order.push_back(static_cast<std::int64_t>(i));
  }
  const auto points = vectors.to(torch::kCPU, torch::kDouble).index_select(0, torch::tensor(order, torch::kLong));
  const auto clusters = kmeans(points, options);
  result.labels = canonical_labels(clusters.labels);
  result.similarity = cosine_similarity(points);
  result.inertia = clusters.inertia;
  result.silhouette = silhouette(points, result.labels);
  return result;
}

}  // namespace quiver::cluster
