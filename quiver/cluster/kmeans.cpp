#include "quiver/cluster/kmeans.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::cluster {
namespace {

/// A row-major matrix seen through its pointer; the tensor it came from is alive elsewhere.
struct Points {
  const double* data;
  std::int64_t count;
  std::int64_t dim;
  const double* row(std::int64_t i) const { return data + i * dim; }
};

/// |a - b|^2 by differences: exact zeros for equal points, which the |a|^2 - 2ab + |b|^2 form does
/// not give.
double squared_distance(const double* a, const double* b, std::int64_t dim) {
  // Four sums, so that the additions do not wait for each other; always in this order.
  double sums[4] = {0, 0, 0, 0};
  std::int64_t c = 0;
  for (; c + 4 <= dim; c += 4) {
    for (std::int64_t lane = 0; lane < 4; ++lane) {
      const double difference = a[c + lane] - b[c + lane];
      sums[lane] += difference * difference;
    }
  }
  for (; c < dim; ++c) sums[0] += (a[c] - b[c]) * (a[c] - b[c]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// An index drawn in proportion to `weights`, whose sum is `total`. Where all weights are 0 (every point lies on a centre), any index.
std::int64_t draw(const std::vector<double>& weights, double total, RandomStream& random) {
  if (!(total > 0)) return static_cast<std::int64_t>(random.below(weights.size()));
  const double threshold = random.uniform() * total;
  double sum = 0;
  std::int64_t last_positive = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) last_positive = static_cast<std::int64_t>(i);
    sum += weights[i];
    if (sum > threshold) return static_cast<std::int64_t>(i);
  }
  return last_positive;  // rounding left the threshold above the last sum
}

/// Greedy k-means++: the indices of K points to start from.
std::vector<std::int64_t> choose_starts(const Points& points, std::int64_t num_clusters, RandomStream& random) {
  const auto num_trials = 2 + static_cast<std::int64_t>(std::log(static_cast<double>(num_clusters)));
  const auto distances_to = [&](std::int64_t center) {
    std::vector<double> distances(static_cast<std::size_t>(points.count));
    for (std::int64_t i = 0; i < points.count; ++i) {
      distances[static_cast<std::size_t>(i)] = squared_distance(points.row(i), points.row(center), points.dim);
    }
    return distances;
  };
  const auto sum_of = [](const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); };
  std::vector<std::int64_t> starts = {static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(points.count)))};
  auto nearest = distances_to(starts[0]);  // to the nearest centre so far
  auto potential = sum_of(nearest);
  while (static_cast<std::int64_t>(starts.size()) < num_clusters) {
    std::int64_t best = -1;
    double best_potential = std::numeric_limits<double>::infinity();
    std::vector<double> best_nearest;
    for (std::int64_t trial = 0; trial < num_trials; ++trial) {
      const auto candidate = draw(nearest, potential, random);
      auto distances = distances_to(candidate);
      for (std::size_t i = 0; i < distances.size(); ++i) distances[i] = std::min(distances[i], nearest[i]);
      const auto candidate_potential = sum_of(distances);
      if (best < 0 || candidate_potential < best_potential) {
        best = candidate;
        best_potential = candidate_potential;
        best_nearest = std::move(distances);
      }
    }
    starts.push_back(best);
    nearest = std::move(best_nearest);
    potential = best_potential;
  }
  return starts;
}

/// One run of Lloyd's algorithm.
class Lloyd {
 public:
  Lloyd(const Points& points, const std::vector<std::int64_t>& starts)
      : points_(points),
        num_clusters_(static_cast<std::int64_t>(starts.size())),
        centers_(static_cast<std::size_t>(num_clusters_ * points.dim)),
        labels_(static_cast<std::size_t>(points.count), -1),
        distances_(static_cast<std::size_t>(points.count), 0) {
    for (std::int64_t k = 0; k < num_clusters_; ++k) {
      std::copy_n(points.row(starts[static_cast<std::size_t>(k)]), points.dim, center(k));
    }
  }

  void run(std::int64_t max_iterations) {
    for (std::int64_t i = 0; i < max_iterations; ++i) {
      const auto before = labels_;
      assign();
      repair();
      update_centers();
      if (labels_ == before) return;
    }
  }

  /// Of the labels and the means of their clusters.
  double inertia() const {
    double sum = 0;
    for (std::int64_t i = 0; i < points_.count; ++i) {
      sum += squared_distance(points_.row(i), center(label(i)), points_.dim);
    }
    return sum;
  }

  const std::vector<std::int64_t>& labels() const { return labels_; }
  const std::vector<double>& centers() const { return centers_; }

 private:
  double* center(std::int64_t k) { return centers_.data() + k * points_.dim; }
  const double* center(std::int64_t k) const { return centers_.data() + k * points_.dim; }
  std::int64_t label(std::int64_t i) const { return labels_[static_cast<std::size_t>(i)]; }

  void assign() {
    for (std::int64_t i = 0; i < points_.count; ++i) {
      std::int64_t best = 0;
      double best_distance = squared_distance(points_.row(i), center(0), points_.dim);
      for (std::int64_t k = 1; k < num_clusters_; ++k) {
        const double distance = squared_distance(points_.row(i), center(k), points_.dim);
        if (distance < best_distance) {
          best = k;
          best_distance = distance;
        }
      }
      labels_[static_cast<std::size_t>(i)] = best;
      distances_[static_cast<std::size_t>(i)] = best_distance;
    }
  }

  /// Gives each empty cluster the point farthest from its centre, of the clusters that can spare one.
  void repair() {
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(num_clusters_), 0);
    for (const auto k : labels_) ++sizes[static_cast<std::size_t>(k)];
    for (std::int64_t k = 0; k < num_clusters_; ++k) {
      if (sizes[static_cast<std::size_t>(k)] > 0) continue;
      std::int64_t farthest = -1;
      for (std::int64_t i = 0; i < points_.count; ++i) {
        if (sizes[static_cast<std::size_t>(label(i))] < 2) continue;
        if (farthest < 0 || distances_[static_cast<std::size_t>(i)] > distances_[static_cast<std::size_t>(farthest)]) {
          farthest = i;
        }
      }
      --sizes[static_cast<std::size_t>(label(farthest))];  // num_clusters <= count: some cluster has two points
      ++sizes[static_cast<std::size_t>(k)];
      labels_[static_cast<std::size_t>(farthest)] = k;
      distances_[static_cast<std::size_t>(farthest)] = 0;
    }
  }

  void update_centers() {
    std::fill(centers_.begin(), centers_.end(), 0.0);
    std::vector<double> sizes(static_cast<std::size_t>(num_clusters_), 0);
    for (std::int64_t i = 0; i < points_.count; ++i) {
      double* sum = center(label(i));
      for (std::int64_t c = 0; c < points_.dim; ++c) sum[c] += points_.row(i)[c];
      sizes[static_cast<std::size_t>(label(i))] += 1;
    }
    for (std::int64_t k = 0; k < num_clusters_; ++k) {
      for (std::int64_t c = 0; c < points_.dim; ++c) center(k)[c] /= sizes[static_cast<std::size_t>(k)];
    }
  }

  Points points_;
  std::int64_t num_clusters_;
  std::vector<double> centers_;  // [K, d]
  std::vector<std::int64_t> labels_;
  std::vector<double> distances_;  // to the centre each point was assigned to
};

void check(const torch::Tensor& points, const KMeansOptions& options) {
  if (points.dim() != 2 || !points.is_floating_point()) {
    fail(ErrorKind::kUsage, "k-means wants floating points [T, d], and these have {} dimensions", points.dim());
  }
  if (options.num_clusters < 1 || options.num_clusters > points.size(0)) {
    fail(ErrorKind::kUsage, "num_clusters {} does not fit {} points: it must be at least 1 and at most the number of points",
         options.num_clusters, points.size(0));
  }
  if (options.restarts < 1 || options.max_iterations < 1) {
    fail(ErrorKind::kUsage, "k-means needs at least one restart and one iteration, and was given {} and {}", options.restarts,
         options.max_iterations);
  }
  if (!tensor::all_finite(points)) {
    fail(ErrorKind::kUsage, "k-means wants finite points, and some of these are NaN or infinite");
  }
}

}  // namespace

KMeansResult kmeans(const torch::Tensor& points, const KMeansOptions& options) {
  const torch::NoGradGuard no_grad;
  check(points, options);
  const auto matrix = points.to(torch::kCPU, torch::kDouble).contiguous();
  const Points view{tensor::raw_data<double>(matrix, "points of k-means", matrix.sizes()), matrix.size(0), matrix.size(1)};

  std::vector<KMeansResult> results(static_cast<std::size_t>(options.restarts));
  at::parallel_for(0, options.restarts, /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
    for (auto restart = begin; restart < end; ++restart) {
      RandomStream random(options.seed, "kmeans/restart/" + std::to_string(restart));
      Lloyd run(view, choose_starts(view, options.num_clusters, random));
      run.run(options.max_iterations);
      auto& result = results[static_cast<std::size_t>(restart)];
      result.labels = run.labels();
      result.inertia = run.inertia();
      result.centers = torch::tensor(run.centers(), torch::kDouble).reshape({options.num_clusters, view.dim});
    }
  });
  return *std::ranges::min_element(results, {}, &KMeansResult::inertia);
}

}  // namespace quiver::cluster
