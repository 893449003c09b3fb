#include "quiver/train/checkpoint.h"

#include <torch/utils.h>

#include <limits>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/safetensors.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::train {
namespace {

constexpr const char* kHint = "; delete it to start anew";

/// The tensors of a checkpoint by name, those of AdamW::state included.
tensor::TensorSpecs specs_of(const torch::Tensor& values, bool has_best) {
  const tensor::TensorSpec like_values{values.scalar_type(), values.sizes().vec()};
  tensor::TensorSpecs specs = {{"values", like_values},
                               {"first", like_values},
                               {"second", like_values},
                               {"steps", {torch::kLong, {1}}},
                               {"losses", {torch::kDouble, {-1}}},
                               {"counters", {torch::kLong, {3}}},
                               {"seconds", {torch::kDouble, {1}}},
                               {"validations", {torch::kDouble, {-1, 2}}}};
  if (has_best) specs.emplace("best_values", like_values);
  return specs;
}

/// The validations, and the step of the lowest loss.
void read_validations(const torch::Tensor& rows, const std::string& origin, TrainStats& stats) {
  const auto numbers = tensor::elements<double>(rows, "validations of a checkpoint");
  double lowest = std::numeric_limits<double>::infinity();
  std::int64_t last = 0;
  for (std::size_t i = 0; i + 1 < numbers.size(); i += 2) {
    const double step = numbers[i], loss = numbers[i + 1];
    if (!(step > static_cast<double>(last) && step <= static_cast<double>(stats.steps))) {
      fail(ErrorKind::kBadFormat, "{}: validation {} is of step {}, after {} and at step {}{}", origin, i / 2, step, last, stats.steps,
           kHint);
    }
    last = static_cast<std::int64_t>(step);
    stats.validations.push_back({last, loss});
    if (loss >= lowest && i > 0) continue;
    lowest = loss;
    stats.best_step = last;
  }
}

TrainStats read_stats(const tensor::TensorMap& tensors, const std::string& origin, std::int64_t num_steps) {
  TrainStats stats;
  const auto* counters = tensor::raw_data<std::int64_t>(tensors.at("counters"), "counters of a checkpoint", {3});
  stats.steps = counters[0];
  stats.tokens = counters[1];
  stats.rows = counters[2];
  stats.seconds = tensors.at("seconds").item<double>();
  const auto losses = tensor::elements<double>(tensors.at("losses"), "losses of a checkpoint");
  stats.losses.assign(losses.begin(), losses.end());
  const auto optimizer_steps = tensors.at("steps").item<std::int64_t>();
  if (stats.steps < 0 || stats.steps > num_steps || stats.steps != std::ssize(losses) || stats.steps != optimizer_steps) {
    fail(ErrorKind::kBadFormat, "{} is at step {} of {} with {} losses and {} steps of the optimiser{}", origin, stats.steps, num_steps,
         losses.size(), optimizer_steps, kHint);
  }
  if (stats.tokens < 0 || stats.rows < 0 || !(stats.seconds >= 0)) {
    fail(ErrorKind::kBadFormat, "{} has seen {} tokens and {} rows in {} seconds; expected 0 or more{}", origin, stats.tokens, stats.rows,
         stats.seconds, kHint);
  }
  read_validations(tensors.at("validations"), origin, stats);
  if (stats.validations.empty() == tensors.contains("best_values")) {
    fail(ErrorKind::kBadFormat, "{} holds {} validations and {} 'best_values'{}", origin, stats.validations.size(),
         tensors.contains("best_values") ? "has" : "no", kHint);
  }
  return stats;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& path, const std::string& key, const Checkpoint& checkpoint) {
  const auto& stats = checkpoint.stats;
  auto tensors = checkpoint.optimizer;
  tensors.emplace("values", checkpoint.values);
  tensors.emplace("losses", torch::tensor(stats.losses, torch::kDouble));
  tensors.emplace("counters", torch::tensor({stats.steps, stats.tokens, stats.rows}, torch::kLong));
  tensors.emplace("seconds", torch::tensor({stats.seconds}, torch::kDouble));
  std::vector<double> validations;
  for (const auto& validation : stats.validations) {
    validations.push_back(static_cast<double>(validation.step));
    validations.push_back(validation.loss);
  }
  tensors.emplace("validations", torch::tensor(validations, torch::kDouble).view({-1, 2}));
  if (checkpoint.best_values.defined()) tensors.emplace("best_values", checkpoint.best_values);
  tensor::save_tensors(path, tensors, {{"quiver.checkpoint", "1"}, {"quiver.key", key}});
}

std::optional<Checkpoint> read_checkpoint(const std::filesystem::path& path, const std::string& key, const torch::Tensor& values,
                                          std::int64_t num_steps) {
  const io::MappedFile file(path);
  const auto view = io::SafetensorsView::parse(file.bytes(), path.string());
  const auto found = view.metadata().find("quiver.key");
  if (found == view.metadata().end() || found->second != key) return std::nullopt;
  tensor::TensorMap tensors;
  for (const auto& entry : view.entries()) tensors.emplace(entry.name, tensor::to_tensor(entry));
  const auto origin = format("checkpoint '{}'", path.string());
  tensor::expect_tensors(tensors, specs_of(values, tensors.contains("best_values")), origin, kHint);
  Checkpoint checkpoint{
      .values = tensors.at("values"), .best_values = {}, .optimizer = {}, .stats = read_stats(tensors, origin, num_steps)};
  if (tensors.contains("best_values")) checkpoint.best_values = tensors.at("best_values");
  for (const char* name : {"first", "second", "steps"}) checkpoint.optimizer.emplace(name, tensors.at(name));
  return checkpoint;
}

}  // namespace quiver::train
