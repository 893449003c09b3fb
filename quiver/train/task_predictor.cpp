#include "quiver/train/task_predictor.h"

#include <torch/optim/lbfgs.h>
#include <torch/utils.h>

#include <cmath>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tensor/finite.h"

namespace quiver::train {
namespace {

using tensor::TensorMap;

torch::Tensor to_double(const torch::Tensor& tensor) { return tensor.detach().to(torch::kCPU, torch::kDouble).contiguous(); }

/// softmax's argument, [N, K], of standardised features [N, F].
torch::Tensor logits_of(const TensorMap& tensors, const torch::Tensor& standardized) {
  auto h = standardized;
  if (tensors.contains("hidden.weight")) {
    h = torch::relu(torch::addmm(tensors.at("hidden.bias"), h, tensors.at("hidden.weight").t()));
  }
  return torch::addmm(tensors.at("bias"), h, tensors.at("weight").t());
}

void check_training(const torch::Tensor& features, std::span<const std::int64_t> labels, std::int64_t num_classes,
                    const TaskPredictorOptions& options) {
  if (features.dim() != 2 || !features.is_floating_point() || features.size(0) < 1 || features.size(1) < 1) {
    fail(ErrorKind::kUsage, "a task predictor learns from floating features [N, F], and these are {}", tensor::describe(features));
  }
  if (features.size(0) != static_cast<std::int64_t>(labels.size())) {
    fail(ErrorKind::kMismatch, "{} labels do not fit features {}: there must be one label for each row", labels.size(),
         tensor::describe(features));
  }
  if (!tensor::all_finite(features)) {
    fail(ErrorKind::kUsage, "a task predictor wants finite features, and some of these are NaN or infinite");
  }
  if (num_classes < 2) fail(ErrorKind::kUsage, "num_classes is {}: a task predictor chooses among at least 2", num_classes);
  for (const auto label : labels) {
    if (label < 0 || label >= num_classes) fail(ErrorKind::kUsage, "label {} is not one of 0 to {}", label, num_classes - 1);
  }
  if (options.hidden < 0 || options.max_iterations < 1 || !(options.l2 >= 0 && std::isfinite(options.l2))) {
    fail(ErrorKind::kUsage, "a task predictor cannot have {} hidden units, l2 {} and {} iterations: expected at least 0, 0 and 1",
         options.hidden, options.l2, options.max_iterations);
  }
}

/// Weights and biases before training: 0 without a hidden layer; else uniform within 1 / sqrt(inputs), where 0 would keep all units alike.
TensorMap initial_tensors(std::int64_t num_features, std::int64_t num_classes, const TaskPredictorOptions& options) {
  const auto zeros = [](torch::IntArrayRef sizes) { return torch::zeros(sizes, torch::kDouble); };
  if (options.hidden == 0) return {{"weight", zeros({num_classes, num_features})}, {"bias", zeros({num_classes})}};
  RandomStream random(options.seed, "task_predictor");
  const auto draw = [&](std::int64_t rows, std::int64_t columns) {
    return tensor::uniform({rows, columns}, 1 / std::sqrt(static_cast<double>(columns)), random).to(torch::kDouble);
  };
  TensorMap tensors;
  tensors["hidden.weight"] = draw(options.hidden, num_features);
  tensors["hidden.bias"] = zeros({options.hidden});
  tensors["weight"] = draw(num_classes, options.hidden);
  tensors["bias"] = zeros({num_classes});
  return tensors;
}

}  // namespace

TaskPredictor::TaskPredictor(const TensorMap& tensors) {
  for (const auto& [name, value] : tensors) {
    if (!value.is_floating_point()) {
      fail(ErrorKind::kMismatch, "tensor '{}' of a task predictor is {}: expected a floating one", name, tensor::describe(value));
    }
    tensors_[name] = to_double(value);
  }
  const auto expect = [&](const char* name, std::vector<std::int64_t> sizes) {  // -1: any
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) fail(ErrorKind::kMismatch, "a task predictor needs a tensor '{}', and there is none", name);
    const auto& value = found->second;
    bool fits = value.dim() == static_cast<std::int64_t>(sizes.size());
    for (std::size_t i = 0; fits && i < sizes.size(); ++i) {
      const auto size = value.size(static_cast<std::int64_t>(i));
      fits = size >= 1 && (sizes[i] < 0 || size == sizes[i]);
    }
    if (!fits) {
      fail(ErrorKind::kMismatch, "tensor '{}' of a task predictor is {} and does not fit the others", name, tensor::describe(value));
    }
  };
  expect("mean", {-1});
  expect("scale", {num_features()});
  expect("bias", {-1});
  auto inputs = num_features();
  if (tensors_.contains("hidden.weight") || tensors_.contains("hidden.bias")) {
    expect("hidden.bias", {-1});
    inputs = tensors_.at("hidden.bias").size(0);
    expect("hidden.weight", {inputs, num_features()});
  }
  expect("weight", {num_classes(), inputs});
}

torch::Tensor TaskPredictor::log_probabilities(const torch::Tensor& features) const {
  if (features.dim() != 2 || features.size(1) != num_features()) {
    fail(ErrorKind::kMismatch, "features {} do not fit a task predictor of {} features: expected [N, {}]", tensor::describe(features),
         num_features(), num_features());
  }
  const torch::NoGradGuard no_grad;
  return torch::log_softmax(logits_of(tensors_, (to_double(features) - tensors_.at("mean")) / tensors_.at("scale")), 1);
}

TaskPredictor train_task_predictor(const torch::Tensor& features, std::span<const std::int64_t> labels, std::int64_t num_classes,
                                   const TaskPredictorOptions& options) {
  check_training(features, labels, num_classes, options);
  const auto x = to_double(features);
  const auto mean = x.mean(0);
  const auto deviation = x.var(0, /*unbiased=*/false).sqrt();
  const auto scale = torch::where(deviation > 1e-12 * x.abs().amax(0), deviation, torch::ones_like(deviation));
  const auto standardized = (x - mean) / scale;
  const auto wanted = torch::tensor(std::vector<std::int64_t>(labels.begin(), labels.end()), torch::kLong);

  auto tensors = initial_tensors(x.size(1), num_classes, options);
  std::vector<torch::Tensor> parameters;
  for (auto& [name, value] : tensors) parameters.push_back(value.requires_grad_());
  torch::optim::LBFGS optimizer(parameters, torch::optim::LBFGSOptions(/*lr=*/1)
                                                .max_iter(options.max_iterations)
                                                .max_eval(2 * options.max_iterations)
                                                .tolerance_grad(1e-9)
                                                .tolerance_change(1e-14)
                                                .history_size(20)
                                                .line_search_fn("strong_wolfe"));
  const auto count = static_cast<double>(labels.size());
  optimizer.step([&] {
    optimizer.zero_grad();
    auto loss = torch::nll_loss(torch::log_softmax(logits_of(tensors, standardized), 1), wanted, {}, at::Reduction::Sum);
    for (const auto& [name, value] : tensors) {
      if (name.ends_with("weight")) loss = loss + options.l2 / 2 * value.square().sum();
    }
    loss = loss / count;  // so that the tolerances do not depend on how many examples there are
    loss.backward();
    return loss;
  });
  tensors["mean"] = mean;
  tensors["scale"] = scale;
  return TaskPredictor(tensors);
}

}  // namespace quiver::train
