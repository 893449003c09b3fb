// AdamW over one flat buffer, and the learning-rate schedule.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/nn/update.h"
#include "quiver/tensor/tensor.h"

namespace quiver::train {

/// How the rate goes on after warm-up.
enum class Schedule { kLinear, kCosine, kConstant };

struct OptimizerOptions {
  double learning_rate = 1e-4;  ///< peak (Ostapenko et al. 2024, app. 9)
  Schedule schedule = Schedule::kLinear;
  double warmup_fraction = 0.06;  ///< of all steps: linear from 0
  double lora_plus_ratio = 1;     ///< rate of lora_b over that of lora_a (LoRA+, Hayou et al. 2024)
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double max_grad_norm = 1;  ///< global norm of an adapter's gradient; 0: no clipping
};

/// Learning rate of step i (from 0) of N, with W = ceil(warmup_fraction N) steps of warm-up: peak i / W while i < W, then
/// with p = (i - W) / (N - W) peak (1 - p) if linear, peak (1 + cos(pi p)) / 2 if cosine, peak if constant.
double learning_rate(const OptimizerOptions& options, std::int64_t step, std::int64_t num_steps);

/// The trainable numbers of one adapter as a single float32 vector, so that an optimiser step is a few passes over
/// memory instead of hundreds of small ones. The adapter's pairs are views of it.
class FlatParameters {
 public:
  /// Copies the adapter's tensors; dtype float32 (float64 for tests).
  FlatParameters(const adapters::LoraAdapter& adapter, torch::Device device, torch::Dtype dtype = torch::kFloat);

  /// The adapter over the views.
  const adapters::LoraAdapter& adapter() const { return adapter_; }
  torch::Tensor& values() { return values_; }      ///< [P]
  torch::Tensor& gradient() { return gradient_; }  ///< [P]
  /// Views of gradient() by path, in the order of the pair's tensors().
  const std::map<std::string, std::shared_ptr<nn::GradientSink>>& sinks() const { return sinks_; }
  /// [P]: `ratio` where a number belongs to a lora_b, else 1. Undefined if the ratio is 1.
  torch::Tensor rate_factors(double ratio) const;
  /// A copy with tensors of its own, on the CPU; of other values [P] if given.
  adapters::LoraAdapter snapshot() const { return snapshot(values_); }
  adapters::LoraAdapter snapshot(const torch::Tensor& values) const;

 private:
  torch::Tensor values_, gradient_;
  adapters::LoraAdapter adapter_;
  std::map<std::string, std::shared_ptr<nn::GradientSink>> sinks_;
};

/// AdamW (Loshchilov & Hutter 2019, algorithm 2) with decoupled weight decay, as torch.optim.AdamW computes it.
class AdamW {
 public:
  /// `rate_factors` [P] multiply the rate by parameter; undefined for 1.
  AdamW(const OptimizerOptions& options, const torch::Tensor& like, torch::Tensor rate_factors = {});
  /// Clips the gradient to the maximal norm, updates `values` and returns the norm before clipping. Changes nothing where
  /// that is not finite.
  double step(torch::Tensor& values, torch::Tensor& gradient, double rate);

  /// "first", "second" and "steps", for checkpoints.
  tensor::TensorMap state() const;
  /// Throws kBadFormat, before anything changes, for tensors of other names, shapes or dtypes.
  void restore(const tensor::TensorMap& state);

 private:
  OptimizerOptions options_;
  torch::Tensor first_, second_, rate_factors_;
  std::int64_t steps_ = 0;
};

}  // namespace quiver::train
