// Training the gates of a frozen adapter (Phatgoose, Muqeeth et al. 2024).
#pragma once

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "quiver/adapters/gated_update.h"
#include "quiver/tensor/tensor.h"
#include "quiver/train/trainable.h"

namespace quiver::train {

/// A vector v [d_in] for every projection that the adapter adapts, 0 in the beginning, in path order in values().
class Gates : public Trainable {
 public:
  Gates(adapters::LoraAdapter adapter, torch::Device device, torch::Dtype dtype = torch::kFloat);

  const std::string& name() const override { return adapter_.name; }
  torch::Tensor& values() override { return values_; }
  torch::Tensor& gradient() override { return gradient_; }
  nn::TrainedUpdates attach(const nn::LinearMap& base) override;
  void lay_out(std::span<const std::int32_t> groups) override;

  /// v by path, of the given values; copies on the CPU.
  tensor::TensorMap gates(const torch::Tensor& values) const;

 private:
  adapters::LoraAdapter adapter_;
  torch::Tensor values_, gradient_;
  std::vector<std::shared_ptr<adapters::GatedUpdate>> gated_;
};

}  // namespace quiver::train
