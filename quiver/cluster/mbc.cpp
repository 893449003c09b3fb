#include "quiver/cluster/mbc.h"

#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/cluster/kmeans.h"
#include "quiver/cluster/partition.h"
#include "quiver/tensor/quantile.h"

namespace quiver::cluster {
namespace {

/// Silhouettes nearer than this differ by rounding alone.
constexpr double kEqualSilhouettes = 1e-12;

torch::Tensor unit_rows(const torch::Tensor& rows) {
  const auto norms = rows.norm(2, /*dim=*/1, /*keepdim=*/true);
  return rows / torch::where(norms > 0, norms, torch::ones_like(norms));
}

void check_num_clusters(std::int64_t num_clusters, std::size_t num_adapters) {
  if (num_clusters < 1 || num_clusters > static_cast<std::int64_t>(num_adapters)) {
    fail(ErrorKind::kUsage, "{} adapters cannot form {} clusters: `num_clusters` must be at least 1 and at most the number of adapters",
         num_adapters, num_clusters);
  }
}

/// What all K of a sweep share.
struct Similarities {
  std::vector<std::string> names;  ///< sorted
  torch::Tensor matrix;            ///< [T, T]
};

Similarities similarities(std::span<const adapters::LoraAdapter> adapters, const MbcOptions& options) {
  std::vector<std::string> names;
  for (const auto& adapter : adapters) names.push_back(adapter.name);
  Similarities result;
  std::vector<adapters::LoraAdapter> sorted;  // copies share storage
  for (const auto i : order_by_name(names, "adapters")) {
    result.names.push_back(names[i]);
    sorted.push_back(adapters[i]);
  }
  const auto gram = options.similarity == Similarity::kFactors ? gram_of_factors(sorted, options.sparsity) : gram_of_products(sorted);
  const auto most_components = std::max<std::int64_t>(1, static_cast<std::int64_t>(sorted.size()) - 1);
  result.matrix = cosine_similarity(embed(gram, std::min(options.svd_components, most_components)));
  return result;
}

SweepEntry cluster_rows(const torch::Tensor& similarity, std::int64_t num_clusters, const MbcOptions& options) {
  const auto clusters = kmeans(similarity, {.num_clusters = num_clusters, .seed = options.seed, .restarts = options.restarts});
  SweepEntry entry{.num_clusters = num_clusters, .labels = canonical_labels(clusters.labels), .inertia = clusters.inertia};
  if (num_clusters > 1) entry.silhouette = silhouette(similarity, entry.labels);
  return entry;
}

}  // namespace

double magnitude_quantile(const torch::Tensor& x, double quantile) {
  if (!(quantile >= 0 && quantile <= 1)) {
    fail(ErrorKind::kUsage, "sparsity {} is not a quantile: it must be in [0, 1]", quantile);
  }
  return tensor::magnitude_quantile(x, quantile);
}

torch::Tensor sparsify(const torch::Tensor& x, double quantile) {
  const double threshold = magnitude_quantile(x, quantile);
  return torch::where(x.abs().to(torch::kDouble) <= threshold, torch::zeros_like(x), x);
}

torch::Tensor embed(const torch::Tensor& gram, std::int64_t components) {
  if (gram.dim() != 2 || gram.size(0) != gram.size(1) || gram.size(0) < 1) {
    fail(ErrorKind::kUsage, "a Gram matrix is [T, T] with T >= 1, and this one has {} entries in {} dimensions", gram.numel(), gram.dim());
  }
  if (components < 1) fail(ErrorKind::kUsage, "svd_components is {}: the embedding needs at least 1", components);
  const torch::NoGradGuard no_grad;
  const auto count = gram.size(0);
  const auto kept = std::min(components, count);
  const auto [eigenvalues, eigenvectors] = torch::linalg_eigh(gram.to(torch::kCPU, torch::kDouble));  // ascending
  // Eigenvalues that rounding alone made positive would give a zero direction the weight of noise.
  const double noise = eigenvalues[-1].item<double>() * static_cast<double>(count) * 1e-15;
  const auto squares = torch::where(eigenvalues > noise, eigenvalues, torch::zeros_like(eigenvalues));
  const auto rows = (eigenvectors * squares.sqrt()).narrow(1, count - kept, kept).flip(1);  // largest first
  return unit_rows(rows);
}

torch::Tensor cosine_similarity(const torch::Tensor& embedding) {
  const torch::NoGradGuard no_grad;
  const auto unit = unit_rows(embedding.to(torch::kCPU, torch::kDouble));
  return unit.matmul(unit.t());
}

MbcResult mbc(std::span<const adapters::LoraAdapter> adapters, const MbcOptions& options) {
  check_num_clusters(options.num_clusters, adapters.size());
  auto [names, similarity] = similarities(adapters, options);
  auto entry = cluster_rows(similarity, options.num_clusters, options);
  return {.names = std::move(names),
          .labels = std::move(entry.labels),
          .similarity = similarity,
          .inertia = entry.inertia,
          .silhouette = entry.silhouette.value_or(0)};
}

SweepResult sweep_clusters(std::span<const adapters::LoraAdapter> adapters, const MbcOptions& options, std::span<const std::int64_t> ks) {
  std::set<std::int64_t> each(ks.begin(), ks.end());
  for (const auto k : each) check_num_clusters(k, adapters.size());
  auto [names, similarity] = similarities(adapters, options);
  for (std::int64_t k = 1; ks.empty() && k <= similarity.size(0); ++k) each.insert(k);

  SweepResult result{.names = std::move(names), .similarity = similarity};
  for (const auto k : each) result.entries.push_back(cluster_rows(similarity, k, options));
  result.suggested = result.entries.front().num_clusters;
  double best = -std::numeric_limits<double>::infinity();
  for (const auto& entry : result.entries) {
    if (entry.silhouette.value_or(-std::numeric_limits<double>::infinity()) <= best + kEqualSilhouettes) continue;
    best = *entry.silhouette;
    result.suggested = entry.num_clusters;
  }
  return result;
}

}  // namespace quiver::cluster
