// k-means on a few thousand points in double precision.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace quiver::cluster {

struct KMeansOptions {
  std::int64_t num_clusters = 10;
  std::uint64_t seed = 42;            ///< restart i draws from the stream "kmeans/restart/i"
  std::int64_t restarts = 10;         ///< independent runs; the first of least inertia wins
  std::int64_t max_iterations = 300;  ///< Lloyd nearly always ends sooner, at a fixed point
};

struct KMeansResult {
  std::vector<std::int64_t> labels;  ///< [T], every cluster has at least one point
  torch::Tensor centers;             ///< [K, d] float64, the means of the clusters
  double inertia = 0;                ///< sum_i |x_i - center(label_i)|^2
};

/// Lloyd's algorithm (Lloyd 1982) from greedy k-means++ starts (Arthur and Vassilvitskii 2007: each centre is the best of 2 + ln K points
/// drawn in proportion to their squared distance from the centres so far). A cluster that loses all its points takes the point farthest
/// from its own centre. points [T, d], any floating dtype; computed in float64. The result depends on (points, options) alone. Throws
/// kUsage unless 1 <= num_clusters <= T, restarts >= 1, max_iterations >= 1 and all points are finite.
KMeansResult kmeans(const torch::Tensor& points, const KMeansOptions& options);

}  // namespace quiver::cluster
