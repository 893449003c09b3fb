// Which task a text is of, from features of it: the router TP of Ostapenko et al. 2024 (sec. 4), with a classifier of our own over any
// features (hidden states of the base model, TF-IDF).
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

#include "quiver/tensor/tensor.h"

namespace quiver::train {

struct TaskPredictorOptions {
  std::int64_t hidden = 0;             ///< units of a hidden layer, ReLU; 0: none, multinomial logistic regression
  double l2 = 1;                       ///< weight of the penalty, 1 / C of scikit-learn's LogisticRegression
  std::int64_t max_iterations = 1000;  ///< of L-BFGS
  std::uint64_t seed = 42;             ///< of the initial weights where there is a hidden layer, stream "task_predictor"
};

/// Probabilities of K tasks given F features,
///
///   p = softmax(W h + b),   h = (x - mean) / scale, or with a hidden layer relu(V (x - mean) / scale + c)
///
/// mean and scale (standard deviation, of the population; 1 where a feature is constant) are those of the training features.
/// A value: immutable, float64, on the CPU. Thread-safe.
class TaskPredictor {
 public:
  /// From what tensors() gave. Throws kMismatch unless its tensors are there, floating and fit together.
  explicit TaskPredictor(const tensor::TensorMap& tensors);
  /// "mean", "scale" [F], "weight" [K, F or H], "bias" [K], and with a hidden layer "hidden.weight" [H, F], "hidden.bias" [H]. Float64.
  const tensor::TensorMap& tensors() const { return tensors_; }

  std::int64_t num_features() const { return tensors_.at("mean").size(0); }
  std::int64_t num_classes() const { return tensors_.at("bias").size(0); }
  /// log p, [N, K] float64, of features [N, F]. Throws kMismatch for another F.
  torch::Tensor log_probabilities(const torch::Tensor& features) const;
  torch::Tensor probabilities(const torch::Tensor& features) const { return log_probabilities(features).exp(); }

 private:
  tensor::TensorMap tensors_;
};

/// Minimises sum_i -log p(label_i | x_i) + l2 / 2 |weights|^2 (not the biases) over all examples at once by L-BFGS with a strong Wolfe line
/// search (Nocedal and Wright 2006, alg. 7.5 and 3.5). Without a hidden layer this is convex, and the minimum the one that scikit-learn's
/// LogisticRegression(C = 1 / l2) finds for standardised features; with one the result depends on the seed. Deterministic.
/// features [N, F], floating, finite; labels N numbers from 0 to num_classes - 1 (a class may have no example, if l2 > 0).
/// Throws kMismatch unless there is one label for each row, kUsage for features, labels or options out of range.
TaskPredictor train_task_predictor(const torch::Tensor& features, std::span<const std::int64_t> labels, std::int64_t num_classes,
                                   const TaskPredictorOptions& options);

}  // namespace quiver::train
