// The file from which an interrupted training goes on.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "quiver/tensor/tensor.h"
#include "quiver/train/trainer.h"

namespace quiver::train {

/// All that the next step of a Trainer depends on.
struct Checkpoint {
  torch::Tensor values;         ///< [P]
  torch::Tensor best_values;    ///< [P] at the lowest validation loss; undefined before the first validation
  tensor::TensorMap optimizer;  ///< AdamW::state()
  TrainStats stats;
};

/// Writes the file atomically. `key` names what is trained.
void write_checkpoint(const std::filesystem::path& path, const std::string& key, const Checkpoint& checkpoint);

/// Reads and checks the whole file; nothing for one of another key. `values` [P] are those of the trainer that asks, which runs
/// `num_steps`. Throws kBadFormat, naming the file, the tensor and both shapes, unless the file is exactly such a trainer's.
std::optional<Checkpoint> read_checkpoint(const std::filesystem::path& path, const std::string& key, const torch::Tensor& values,
                                          std::int64_t num_steps);

}  // namespace quiver::train
