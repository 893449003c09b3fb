#include "quiver/cluster/mbc.h"

#include <torch/torch.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cluster/kmeans.h"
#include "quiver/cluster/partition.h"
#include "quiver/tensor/quantile.h"

namespace quiver::cluster {
namespace {

torch::Tensor unit_rows(const torch::Tensor& rows) {
  const auto norms = rows.norm(2, /*dim=*/1, /*keepdim=*/true);
  return rows / torch::where(norms > 0, norms, torch::ones_like(norms));
}

void check(std::span<const lora::LoraAdapter> adapters, const MbcOptions& options) {
  const auto count = static_cast<std::int64_t>(adapters.size());
  if (options.num_clusters < 1 || options.num_clusters > count) {
    fail(ErrorKind::kUsage, "{} adapters cannot form {} clusters: num_clusters must be at least 1 and at most the number of adapters",
         count, options.num_clusters);
  }
  if (options.svd_components < 1) {
    fail(ErrorKind::kUsage, "svd_components is {}: the embedding needs at least 1", options.svd_components);
  }
}

/// The adapters in the order of their names; copies share storage.
std::vector<lora::LoraAdapter> sorted_by_name(std::span<const lora::LoraAdapter> adapters) {
  std::vector<lora::LoraAdapter> sorted(adapters.begin(), adapters.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].name == sorted[i - 1].name) {
      fail(ErrorKind::kUsage, "two adapters are called '{}': clusters are told by name, so rename one", sorted[i].name);
    }
  }
  return sorted;
}

}  // namespace

std::vector<std::vector<std::string>> MbcResult::clusters() const {
  std::vector<std::vector<std::string>> members;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    if (label >= members.size()) members.resize(label + 1);
    members[label].push_back(names[i]);
  }
  return members;
}

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

MbcResult mbc(std::span<const lora::LoraAdapter> adapters, const MbcOptions& options) {
  check(adapters, options);
  const auto sorted = sorted_by_name(adapters);
  const auto gram = options.similarity == Similarity::kFactors ? gram_of_factors(sorted, options.sparsity) : gram_of_products(sorted);
  MbcResult result;
  for (const auto& adapter : sorted) result.names.push_back(adapter.name);
  const auto most_components = std::max<std::int64_t>(1, static_cast<std::int64_t>(sorted.size()) - 1);
  result.similarity = cosine_similarity(embed(gram, std::min(options.svd_components, most_components)));
  const auto clusters =
      kmeans(result.similarity, {.num_clusters = options.num_clusters, .seed = options.seed, .restarts = options.restarts});
  result.labels = canonical_labels(clusters.labels);
  result.inertia = clusters.inertia;
  result.silhouette = silhouette(result.similarity, result.labels);
  return result;
}

}  // namespace quiver::cluster
