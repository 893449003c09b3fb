// Model-based clustering: groups adapters by the similarity of their weights (Ostapenko et al. 2024, algorithm 1).
//
// The stages are functions of their own, so that each can be tested, and stored, alone:
//   gram_of_factors | gram_of_products  ->  embed  ->  cosine_similarity  ->  kmeans over the rows
//   of the similarity
// The vectors of all T adapters (T x D numbers) are never held at once: their Gram matrix, [T, T], is summed over blocks of coordinates.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/cluster/partition.h"

namespace quiver::cluster {

/// What two adapters are compared by.
enum class Similarity {
  /// The paper's: all factors, A and B, flattened and concatenated, without their scaling.
  kFactors,
  /// The updates themselves, scaling * B A. Unlike kFactors it does not change when (B, A) becomes
  /// (B M, M^-1 A), which is the same adapter. Not sparsified.
  kProducts,
};

struct MbcOptions {
  std::int64_t num_clusters = 10;  ///< K of k-means; the paper's 10
  /// Quantile of |x| up to which an adapter's entries count as 0; for kFactors.
  double sparsity = 0.5;
  std::int64_t svd_components = 64;  ///< at most T - 1 are used
  std::uint64_t seed = 42;           ///< of k-means
  std::int64_t restarts = 10;        ///< of k-means
  Similarity similarity = Similarity::kFactors;
};

struct MbcResult {
  std::vector<std::string> names;    ///< of the adapters, sorted
  std::vector<std::int64_t> labels;  ///< cluster of names[i], numbered by first member
  torch::Tensor similarity;          ///< [T, T] float64: cosine of the embeddings of names[i] and names[j]
  double inertia = 0;                ///< of k-means
  double silhouette = 0;             ///< of the clusters over the rows of `similarity`; in [-1, 1]

  /// The names of each cluster's members, [K], sorted.
  std::vector<std::vector<std::string>> clusters() const { return members_of(names, labels); }
};

/// The clusters for one K of a sweep.
struct SweepEntry {
  std::int64_t num_clusters = 0;
  std::vector<std::int64_t> labels;  ///< as MbcResult's
  double inertia = 0;
  std::optional<double> silhouette;  ///< none for K = 1, where there is no other cluster to compare with
};

struct SweepResult {
  std::vector<std::string> names;   ///< of the adapters, sorted
  torch::Tensor similarity;         ///< as MbcResult's
  std::vector<SweepEntry> entries;  ///< by K, ascending
  /// The K of the largest silhouette; the smallest such K where silhouettes are within 1e-12 of it. The smallest K asked for where
  /// none has a silhouette.
  std::int64_t suggested = 0;
};

/// The factors of an adapter as one float32 vector [D] on the CPU: A then B of every path, in path order, row by row.
torch::Tensor adapter_vector(const adapters::LoraAdapter& adapter);

/// The threshold of a sparsity: tensor::magnitude_quantile. Throws kUsage unless 0 <= quantile <= 1 and x has an entry.
double magnitude_quantile(const torch::Tensor& x, double quantile);

/// x with every entry of magnitude <= magnitude_quantile(x, quantile) set to 0: even at quantile 0 the smallest goes.
torch::Tensor sparsify(const torch::Tensor& x, double quantile);

/// G_ij = <x_i, x_j> of the sparsified vectors, [T, T] float64.
/// Throws kMismatch, naming the adapters, unless all adapt the same paths with the same shapes, and
/// kUsage for an adapter whose vector is 0 or not finite.
torch::Tensor gram_of_factors(std::span<const adapters::LoraAdapter> adapters, double sparsity);

/// G_ij = sum over paths of <dW_i, dW_j> = s_i s_j tr((A_j A_i^T)(B_i^T B_j)), [T, T] float64,
/// without forming any dW. Ranks may differ. Errors as gram_of_factors.
torch::Tensor gram_of_products(std::span<const adapters::LoraAdapter> adapters);

/// The rows of U Sigma of the truncated, uncentred SVD X = U Sigma V^T, each scaled to unit length, from the Gram matrix X X^T = U Sigma^2
/// U^T: [T, min(components, T)], float64, largest singular value first. Exact and deterministic, where the original draws a random
/// subspace. A row without a component in the kept subspace stays 0.
torch::Tensor embed(const torch::Tensor& gram, std::int64_t components);

/// <e_i, e_j> / (|e_i| |e_j|), [T, T] float64; 0 where a row is 0.
torch::Tensor cosine_similarity(const torch::Tensor& embedding);

/// Clusters adapters. The result does not depend on their order: they are sorted by name first. Throws kUsage for fewer adapters than
/// clusters, options out of range or a name that occurs twice; else as above.
MbcResult mbc(std::span<const adapters::LoraAdapter> adapters, const MbcOptions& options);

/// mbc for many K, with the similarity computed once: entry K is what mbc gives for num_clusters = K, which is not read here. `ks`
/// are taken in ascending order, each once; none means 1 to T. Throws kUsage for a K out of [1, T]; else as mbc.
SweepResult sweep_clusters(std::span<const adapters::LoraAdapter> adapters, const MbcOptions& options,
                           std::span<const std::int64_t> ks = {});

}  // namespace quiver::cluster
