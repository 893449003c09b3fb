#include "quiver/train/gates.h"

#include <torch/utils.h>

#include <utility>

namespace quiver::train {

Gates::Gates(adapters::LoraAdapter adapter, torch::Device device, torch::Dtype dtype) : adapter_(std::move(adapter)) {
  adapters::refuse_more_than_lora(adapter_, "train gates of it");
  std::int64_t size = 0;
  for (auto& [path, pair] : adapter_.pairs) {
    pair = pair.to(device, dtype);
    size += pair.in_features();
  }
  values_ = torch::zeros({size}, torch::TensorOptions().dtype(dtype).device(device));
  gradient_ = torch::zeros_like(values_);
}

nn::TrainedUpdates Gates::attach(const nn::LinearMap& base) {
  nn::TrainedUpdates updates;
  std::int64_t offset = 0;
  for (const auto& [path, pair] : adapter_.pairs) {
    const auto view = [&](const torch::Tensor& flat) { return flat.narrow(0, offset, pair.in_features()); };
    gated_.push_back(std::make_shared<adapters::GatedUpdate>(linear_at(base, path, name()), pair, view(values_)));
    auto sink = std::make_shared<nn::GradientSink>();
    sink->sums.push_back(view(gradient_));
    updates.emplace(path, nn::TrainedUpdate{gated_.back(), std::move(sink)});
    offset += pair.in_features();
  }
  return updates;
}

void Gates::lay_out(std::span<const std::int32_t>) {
  for (const auto& gated : gated_) gated->update();
}

tensor::TensorMap Gates::gates(const torch::Tensor& values) const {
  tensor::expect_like(values, values_, "values of gates");
  tensor::TensorMap gates;
  std::int64_t offset = 0;
  for (const auto& [path, pair] : adapter_.pairs) {
    gates.emplace(path, values.narrow(0, offset, pair.in_features()).detach().to(torch::kCPU, /*non_blocking=*/false, /*copy=*/true));
    offset += pair.in_features();
  }
  return gates;
}

}  // namespace quiver::train
