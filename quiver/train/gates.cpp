#include "quiver/train/gates.h"

#include <torch/utils.h>

#include <utility>

namespace quiver::train {

Gates::Gates(adapters::LoraAdapter adapter, torch::Device device, torch::Dtype dtype) : adapter_(std::move(adapter)) {
  adapters::refuse_dora(adapter_, "train gates of it");
  std::int64_t size = 0;
  for (auto& [path, pair] : adapter_.pairs) {
    pair = pair.to(device, dtype);
    size += pair.in_features();
  }
  values_ = torch::zeros({size}, torch::TensorOptions().dtype(dtype).device(device));
  gradient_ = torch::zeros_like(values_);
}

nn::ProjectionMap Gates::attach(const nn::ProjectionMap& base) {
  auto projections = base;
  std::int64_t offset = 0;
  for (const auto& [path, pair] : adapter_.pairs) {
    auto& projection = projection_at(projections, path, name());
    auto gate = values_.narrow(0, offset, pair.in_features()).detach().requires_grad_();
    gate.mutable_grad() = gradient_.narrow(0, offset, pair.in_features());
    offset += pair.in_features();
    layers_.push_back(std::make_shared<adapters::GatedLora>(projection, pair, std::move(gate)));
    projection = layers_.back();
  }
  return projections;
}

void Gates::lay_out(std::span<const std::int32_t>) {
  for (const auto& layer : layers_) layer->update();
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
