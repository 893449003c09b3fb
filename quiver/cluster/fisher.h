// Likeness of tasks by what they ask of the parameters (pi-tuning, Wu et al. 2023; Task2Vec, Achille et al. 2019).
#pragma once

#include "quiver/tensor/tensor.h"

namespace quiver::cluster {

/// Similarity in [0, 1] of two diagonals of the Fisher information, tensors by path,
///
///   F[p] = mean over examples of (d log-likelihood / d parameter p)^2
///
/// as pi-tuning's code ranks adapters: the mean over paths of cos(F_a / (F_a + F_b), F_b / (F_a + F_b)), elementwise, with 0 / 0 = 0
/// (1 minus Task2Vec's symmetric distance). Every parameter counts alike, however large its gradients are; so both must be on one scale.
///
/// Paths where either diagonal is all 0 are left out. Float64 on the CPU.
/// Throws kMismatch, naming the path, unless both have the same paths and shapes; kUsage if there is no path where both have entries
/// above 0, and for entries that are negative or not finite.
double fisher_similarity(const tensor::TensorMap& a, const tensor::TensorMap& b);

}  // namespace quiver::cluster
