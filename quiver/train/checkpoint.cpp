#include "quiver/train/checkpoint.h"

#include <torch/utils.h>

#include <utility>

#include "quiver/io/file.h"
#include "quiver/io/safetensors.h"
#include "quiver/train/checkpoint_file.h"

namespace quiver::train {

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
  Checkpoint checkpoint;
  checkpoint.stats =
      checked_stats(view, {.dtype = tensor::from_torch_dtype(values.scalar_type()), .num_values = values.numel(), .num_steps = num_steps});
  checkpoint.values = tensor::to_tensor(view.at("values"));
  if (const auto* best = view.find("best_values")) checkpoint.best_values = tensor::to_tensor(*best);
  for (const char* name : {"first", "second", "steps"}) checkpoint.optimizer.emplace(name, tensor::to_tensor(view.at(name)));
  return checkpoint;
}

}  // namespace quiver::train
