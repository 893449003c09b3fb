// What a training changes: numbers, and how the model computes with them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/dora_update.h"
#include "quiver/adapters/lora_update.h"
#include "quiver/nn/linear.h"
#include "quiver/train/optimizer.h"

namespace quiver::train {

/// Numbers that a Trainer changes, and the updates that compute with them. Not thread-safe.
class Trainable {
 public:
  virtual ~Trainable() = default;
  /// Names streams of random numbers, and messages.
  virtual const std::string& name() const = 0;
  /// All that is trained, flat: [P] float32 (float64 for float64 bases).
  virtual torch::Tensor& values() = 0;
  virtual torch::Tensor& gradient() = 0;
  /// [P]: what the learning rate is multiplied by; undefined for 1.
  virtual torch::Tensor rate_factors(const OptimizerOptions&) const { return {}; }

  /// The updates of the model's linear maps that compute with the values, whose gradients go to gradient(). Call it once. Throws kMismatch
  /// for a path that the model does not have.
  virtual nn::TrainedUpdates attach(const nn::LinearMap& base) = 0;
  /// Whether it matters which group a sequence is of; if not, all are computed as of group 0 and share prefixes.
  virtual bool has_groups() const { return false; }
  /// Lays out what passes read, for sequences of these groups: in a pass, group i stands for groups[i].
  virtual void lay_out(std::span<const std::int32_t> groups) = 0;
  /// Seeds what a training step draws in lay_out (of its parameters: inputs have dropout); nothing: it draws nothing, as in validation.
  virtual void set_noise(std::optional<std::uint64_t>) {}
  /// Adds to gradient() what the passes since lay_out summed elsewhere.
  virtual void collect() {}

  /// Of the inputs of what is trained.
  virtual double dropout() const { return 0; }
  /// Masks of the next passes, [T, width] by path; an empty function: none.
  using MaskOf = std::function<torch::Tensor(const std::string& path, std::int64_t width)>;
  virtual void set_dropout_masks(const MaskOf&) {}
};

/// One adapter, whatever the group. Its updates read the flat values, and their gradients go straight to the flat gradient.
class OneAdapter : public Trainable {
 public:
  OneAdapter(const adapters::LoraAdapter& initial, torch::Device device, torch::Dtype dtype = torch::kFloat)
      : parameters_(initial, device, dtype) {}

  const std::string& name() const override { return parameters_.adapter().name; }
  torch::Tensor& values() override { return parameters_.values(); }
  torch::Tensor& gradient() override { return parameters_.gradient(); }
  torch::Tensor rate_factors(const OptimizerOptions& options) const override { return parameters_.rate_factors(options.lora_plus_ratio); }
  nn::TrainedUpdates attach(const nn::LinearMap& base) override;
  void lay_out(std::span<const std::int32_t> groups) override;
  double dropout() const override { return parameters_.adapter().options.dropout; }
  void set_dropout_masks(const MaskOf& mask) override;

  /// The adapter over the flat values, and where the gradients of its pairs go.
  const adapters::LoraAdapter& live() const { return parameters_.adapter(); }
  nn::GradientSink& sink(const std::string& path) const { return *parameters_.sinks().at(path); }
  /// A copy of its own tensors, on the CPU, of the given values.
  adapters::LoraAdapter adapter(const torch::Tensor& values) const { return parameters_.snapshot(values); }

 private:
  FlatParameters parameters_;
  std::map<std::string, std::shared_ptr<adapters::LoraUpdate>> loras_;  // by path
  std::map<std::string, std::shared_ptr<adapters::DoraUpdate>> doras_;
};

/// The linear map at `path`; kMismatch, naming the adapter, if the model does not have it.
const nn::Linear& linear_at(const nn::LinearMap& linears, const std::string& path, const std::string& adapter);

}  // namespace quiver::train
