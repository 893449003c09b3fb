// Fine-tuning the model itself: what adapters are measured against (Ostapenko et al. 2024, FullFT).
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quiver/nn/full_weight.h"
#include "quiver/tensor/tensor.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

/// All linear maps of the blocks, weight and bias, in path order in values(). Embeddings, norms and the head stay as they are: 106 of
/// SmolLM2's 135 million parameters are trained. Beside the model it takes 16 bytes a number: value, gradient and AdamW's moments in
/// float32.
class FullWeights : public Trainable {
 public:
  FullWeights(std::string name, const nn::LinearMap& base, torch::Device device, torch::Dtype compute);

  const std::string& name() const override { return name_; }
  torch::Tensor& values() override { return values_; }
  torch::Tensor& gradient() override { return gradient_; }
  nn::TrainedUpdates attach(const nn::LinearMap& base) override;
  void lay_out(std::span<const std::int32_t> groups) override;
  /// The weights and biases of the given values under their names, "layers.0.mlp.up_proj.weight": views.
  tensor::TensorMap weights(const torch::Tensor& values) const;

 private:
  std::string name_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;  // of the tensors by name: a bias, then its weight
  torch::Dtype compute_;
  torch::Tensor values_, gradient_;
  std::vector<std::shared_ptr<nn::FullWeight>> full_;
};

}  // namespace quiver::train
