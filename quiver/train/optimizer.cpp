#include "quiver/train/optimizer.h"

#include <torch/utils.h>

#include <cmath>
#include <numbers>

#include "quiver/base/error.h"

namespace quiver::train {

double learning_rate(const OptimizerOptions& options, std::int64_t step, std::int64_t num_steps) {
  const auto n = static_cast<double>(num_steps), i = static_cast<double>(step);
  const double warmup = std::ceil(options.warmup_fraction * n);
  if (i < warmup) return options.learning_rate * i / warmup;
  const double left = (n - i) / std::max(n - warmup, 1.0);
  switch (options.schedule) {
    case Schedule::kLinear: return options.learning_rate * left;
    case Schedule::kCosine: return options.learning_rate * (1 - std::cos(std::numbers::pi * left)) / 2;
    case Schedule::kConstant: return options.learning_rate;
  }
  return options.learning_rate;
}

FlatParameters::FlatParameters(const adapters::LoraAdapter& adapter, torch::Device device, torch::Dtype dtype) : adapter_(adapter) {
  std::int64_t size = 0;
  for (const auto& [path, pair] : adapter.pairs) {
    for (const auto& t : pair.tensors()) size += t.numel();
  }
  values_ = torch::empty({size}, torch::TensorOptions().dtype(dtype).device(device));
  gradient_ = torch::zeros_like(values_);
  std::int64_t offset = 0;
  for (auto& [path, pair] : adapter_.pairs) {
    auto tensors = pair.tensors();
    auto sink = std::make_shared<nn::GradientSink>();
    for (auto& t : tensors) {
      const auto view = [&](const torch::Tensor& flat) { return flat.narrow(0, offset, t.numel()).view(t.sizes()); };
      sink->sums.push_back(view(gradient_));
      auto value = view(values_);
      value.copy_(t);
      offset += t.numel();
      t = value;
    }
    pair = pair.with_tensors(tensors);
    sinks_.emplace(path, std::move(sink));
  }
}

torch::Tensor FlatParameters::rate_factors(double ratio) const {
  if (ratio == 1) return {};
  auto factors = torch::ones_like(values_);
  std::int64_t offset = 0;
  for (const auto& [path, pair] : adapter_.pairs) {
    factors.narrow(0, offset + pair.lora_a().numel(), pair.lora_b().numel()).fill_(ratio);
    for (const auto& t : pair.tensors()) offset += t.numel();
  }
  return factors;
}

adapters::LoraAdapter FlatParameters::snapshot(const torch::Tensor& values) const {
  tensor::expect_like(values, values_, "values of an adapter");
  auto copy = adapter_;
  std::int64_t offset = 0;
  const auto own = [&](const torch::Tensor& like) {
    const auto piece = values.narrow(0, offset, like.numel()).view(like.sizes());
    offset += like.numel();
    return piece.detach().to(torch::kCPU, /*non_blocking=*/false, /*copy=*/true);
  };
  for (auto& [path, pair] : copy.pairs) {
    auto tensors = pair.tensors();
    for (auto& t : tensors) t = own(t);
    pair = pair.with_tensors(tensors);
  }
  return copy;
}

AdamW::AdamW(const OptimizerOptions& options, const torch::Tensor& like, torch::Tensor rate_factors)
    : options_(options), first_(torch::zeros_like(like)), second_(torch::zeros_like(like)), rate_factors_(std::move(rate_factors)) {}

double AdamW::step(torch::Tensor& values, torch::Tensor& gradient, double rate) {
  const torch::NoGradGuard no_grad;
  const double norm = gradient.norm().item<double>();
  if (!std::isfinite(norm)) return norm;
  if (options_.max_grad_norm > 0 && norm > options_.max_grad_norm) gradient.mul_(options_.max_grad_norm / (norm + 1e-6));
  ++steps_;
  if (options_.weight_decay != 0) {
    if (rate_factors_.defined()) {
      values.mul_(1 - rate * options_.weight_decay * rate_factors_);
    } else {
      values.mul_(1 - rate * options_.weight_decay);
    }
  }
  first_.mul_(options_.beta1).add_(gradient, 1 - options_.beta1);
  second_.mul_(options_.beta2).addcmul_(gradient, gradient, 1 - options_.beta2);
  const double t = static_cast<double>(steps_);
  const double correction1 = 1 - std::pow(options_.beta1, t), correction2 = 1 - std::pow(options_.beta2, t);
  const auto denominator = second_.sqrt().div_(std::sqrt(correction2)).add_(options_.epsilon);
  values.addcdiv_(rate_factors_.defined() ? first_ * rate_factors_ : first_, denominator, -rate / correction1);
  return norm;
}

tensor::TensorMap AdamW::state() const {
  return {{"first", first_}, {"second", second_}, {"steps", torch::tensor({steps_}, torch::kLong)}};
}

void AdamW::restore(const tensor::TensorMap& state) {
  const tensor::TensorSpec moments{first_.scalar_type(), first_.sizes().vec()};
  tensor::expect_tensors(state, {{"first", moments}, {"second", moments}, {"steps", {torch::kLong, {1}}}}, "the state of AdamW");
  const torch::NoGradGuard no_grad;
  first_.copy_(state.at("first"));
  second_.copy_(state.at("second"));
  steps_ = state.at("steps").item<std::int64_t>();
}

}  // namespace quiver::train
