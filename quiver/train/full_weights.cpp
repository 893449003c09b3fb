#include "quiver/train/full_weights.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/tensor/tensor.h"

namespace quiver::train {

FullWeights::FullWeights(std::string name, const nn::ProjectionMap& base, torch::Device device, torch::Dtype compute)
    : name_(std::move(name)), compute_(compute) {
  std::int64_t size = 0;
  for (const auto& [path, projection] : base) size += projection->in_features() * projection->out_features();
  values_ = torch::empty({size}, torch::TensorOptions().dtype(compute == torch::kDouble ? torch::kDouble : torch::kFloat).device(device));
  gradient_ = torch::zeros_like(values_);
  std::int64_t offset = 0;
  for (const auto& [path, projection] : base) {
    const auto weight = projection->base_weight().flatten();
    values_.narrow(0, offset, weight.numel()).copy_(weight);
    offset += weight.numel();
  }
}

nn::ProjectionMap FullWeights::attach(const nn::ProjectionMap& base) {
  auto projections = base;
  std::int64_t offset = 0;
  for (auto& [path, projection] : projections) {
    const auto out = projection->out_features(), in = projection->in_features();
    auto weight = values_.narrow(0, offset, out * in).view({out, in}).detach().requires_grad_();
    weight.mutable_grad() = gradient_.narrow(0, offset, out * in).view({out, in});
    offset += out * in;
    layers_.push_back(std::make_shared<nn::TrainableDense>(std::move(weight), compute_));
    projection = layers_.back();
  }
  return projections;
}

void FullWeights::lay_out(std::span<const std::int32_t>) {
  for (const auto& layer : layers_) layer->update();
}

void FullWeights::set_values(const torch::Tensor& values) {
  tensor::expect_like(values, values_, "values of full weights");
  if (!values.is_same(values_)) values_.copy_(values);
  lay_out({});
}

}  // namespace quiver::train
