// Likeness of tasks by what they ask of the parameters (pi-tuning, Wu et al. 2023; Task2Vec, Achille et al. 2019).
#pragma once

#include "quiver/tensor/tensor.h"

namespace quiver::cluster {

/// How two diagonals F_a and F_b of the Fisher information are compared.
enum class FisherMeasure {
  /// What pi-tuning's code ranks adapters by: the mean over paths of cos(F_a / (F_a + F_b), F_b / (F_a + F_b)), elementwise, with 0 / 0 = 0
  /// (1 minus Task2Vec's symmetric distance). Every parameter counts alike, however large its gradients are; so both must be on one scale.
  kSymmetric,
  /// The cosine of the diagonals flattened over all paths. A factor of F_a or F_b changes nothing; the largest gradients decide.
  kCosine,
};

/// Similarity in [0, 1] of two diagonals of the Fisher information, tensors by path,
///
///   F[p] = mean over examples of (d log-likelihood / d parameter p)^2
///
/// Paths where either diagonal is all 0 are left out of kSymmetric. Float64 on the CPU.
/// Throws kMismatch, naming the path, unless both have the same paths and shapes; kUsage if there is nothing to compare (kSymmetric: no
/// path where both have entries above 0; kCosine: one is all 0), and for entries that are negative or not finite.
double fisher_similarity(const tensor::TensorMap& a, const tensor::TensorMap& b, FisherMeasure measure = FisherMeasure::kSymmetric);

}  // namespace quiver::cluster
