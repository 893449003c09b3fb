// Training skills and how tasks mix them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quiver/merge/skills.h"
#include "quiver/train/grouped_training.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

struct MixtureOptions {
  merge::MixShape shape;
  bool train_skills = true;     ///< or the logits alone (PolyZ)
  double logit_rate_ratio = 1;  ///< rate of the logits over that of the skills
  double initial_logit = 0;     ///< every logit begins at this
  double initial_spread = 0;    ///< plus a number from U(-spread, spread); Poly: 1e-3
  std::uint64_t seed = 42;      ///< of those, stream "logits/<name>"
  bool sample_weights = false;  ///< draw the weights of a training step (merge::relaxed_bernoulli), as Ponti et al. 2023 do; kSigmoid alone
};

/// K skills and the logits Z of T tasks; a sequence of group t is computed with the mixture of task t. With S heads and U units
/// (merge/skills.h), values() are Z [T, U, S, K], then of every path A [K, r, d_in] and B [K, d_out, r] if skills are trained.
class Mixture : public Trainable {
 public:
  /// Throws as merge::check_skills, and kUsage for no tasks, a rate that is not positive, or sampling with another rule than kSigmoid.
  Mixture(std::string name, std::vector<adapters::LoraAdapter> skills, std::int64_t num_tasks, const MixtureOptions& options,
          torch::Device device, torch::Dtype dtype = torch::kFloat);

  const std::string& name() const override { return name_; }
  torch::Tensor& values() override { return values_; }
  torch::Tensor& gradient() override { return gradient_; }
  torch::Tensor rate_factors(const OptimizerOptions& options) const override;
  nn::TrainedUpdates attach(const nn::LinearMap& base) override;
  bool has_groups() const override { return true; }
  void lay_out(std::span<const std::int32_t> groups) override;
  void set_noise(std::optional<std::uint64_t> seed) override { noise_seed_ = seed; }
  void collect() override;
  double dropout() const override { return skills_.front().options.dropout; }
  void set_dropout_masks(const MaskOf& mask) override;

  const MixtureOptions& options() const { return options_; }
  /// Z of the given values, [T, U, S, K] on the CPU.
  torch::Tensor logits(const torch::Tensor& values) const;
  /// Copies of the skills of the given values, on the CPU.
  std::vector<adapters::LoraAdapter> skills(const torch::Tensor& values) const;
  /// The mixture of task t: merge::mix_skills of the two.
  adapters::LoraAdapter task_adapter(const torch::Tensor& values, std::int64_t task, const std::string& name) const;

 private:
  /// Factors of the skills at a path: views of `values` where skills are trained.
  struct Factors {
    torch::Tensor a, b;  // [K, r, d_in], [K, d_out, r]
  };
  std::map<std::string, Factors> factors(const torch::Tensor& values) const;
  torch::Tensor logits_view(const torch::Tensor& values) const;

  std::string name_;
  std::vector<adapters::LoraAdapter> skills_;
  std::int64_t num_tasks_;
  MixtureOptions options_;
  merge::MixUnits units_;
  torch::Tensor values_, gradient_;
  std::map<std::string, Factors> frozen_;  // where skills are not trained
  std::map<std::string, GroupedTraining> updates_;
  std::optional<std::uint64_t> noise_seed_;
  torch::Tensor leaf_;                    // the values that `mixed_` was computed from
  std::map<std::string, Factors> mixed_;  // [G, r, d_in], [G, d_out, r]
};

}  // namespace quiver::train
