#include "quiver/train/full_weights.h"

#include <torch/utils.h>

#include <utility>

namespace quiver::train {

FullWeights::FullWeights(std::string name, const nn::LinearMap& base, torch::Device device, torch::Dtype compute)
    : name_(std::move(name)), compute_(compute) {
  std::int64_t size = 0;
  for (const auto& [path, linear] : base) {
    shapes_.emplace(path + ".weight", std::vector{linear.out_features(), linear.in_features()});
    if (linear.bias().defined()) shapes_.emplace(path + ".bias", std::vector{linear.out_features()});
    size += linear.num_parameters();
  }
  values_ = torch::empty({size}, torch::TensorOptions().dtype(tensor::compute_dtype(compute)).device(device));
  gradient_ = torch::zeros_like(values_);
  auto views = weights(values_);
  for (const auto& [path, linear] : base) {
    views.at(path + ".weight").copy_(linear.weight().dense());
    if (linear.bias().defined()) views.at(path + ".bias").copy_(linear.bias());
  }
}

tensor::TensorMap FullWeights::weights(const torch::Tensor& values) const {
  tensor::expect_like(values, values_, "values of full weights");
  tensor::TensorMap views;
  std::int64_t offset = 0;
  for (const auto& [name, shape] : shapes_) {
    const auto size = c10::multiply_integers(shape);
    views.emplace(name, values.narrow(0, offset, size).view(shape));
    offset += size;
  }
  return views;
}

nn::TrainedUpdates FullWeights::attach(const nn::LinearMap& base) {
  nn::TrainedUpdates updates;
  const auto values = weights(values_), gradients = weights(gradient_);
  for (const auto& [path, linear] : base) {
    const bool has_bias = linear.bias().defined();
    const auto bias = has_bias ? values.at(path + ".bias") : torch::Tensor();
    full_.push_back(std::make_shared<nn::FullWeight>(values.at(path + ".weight"), bias, compute_));
    auto sink = std::make_shared<nn::GradientSink>();
    sink->sums.push_back(gradients.at(path + ".weight"));
    if (has_bias) sink->sums.push_back(gradients.at(path + ".bias"));
    updates.emplace(path, nn::TrainedUpdate{full_.back(), std::move(sink)});
  }
  return updates;
}

void FullWeights::lay_out(std::span<const std::int32_t>) {
  for (const auto& weight : full_) weight->update();
}

}  // namespace quiver::train
