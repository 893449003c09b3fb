// Fine-tuning the model itself: what adapters are measured against (Ostapenko et al. 2024, FullFT).
#pragma once

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "quiver/nn/trainable_dense.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

/// All linear maps of the blocks, in path order in values(). Embeddings, norms and the head stay as they are: 106 of SmolLM2's 135
/// million parameters are trained. Beside the model it takes 16 bytes a number: value, gradient and AdamW's moments in float32.
class FullWeights : public Trainable {
 public:
  FullWeights(std::string name, const nn::ProjectionMap& base, torch::Device device, torch::Dtype compute);

  const std::string& name() const override { return name_; }
  torch::Tensor& values() override { return values_; }
  torch::Tensor& gradient() override { return gradient_; }
  nn::ProjectionMap attach(const nn::ProjectionMap& base) override;
  void lay_out(std::span<const std::int32_t> groups) override;
  /// Makes the attached projections compute with these values.
  void set_values(const torch::Tensor& values);

 private:
  std::string name_;
  torch::Dtype compute_;
  torch::Tensor values_, gradient_;
  std::vector<std::shared_ptr<nn::TrainableDense>> layers_;
};

}  // namespace quiver::train
