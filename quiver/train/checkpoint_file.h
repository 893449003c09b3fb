// The checks of a checkpoint's file. Free of libtorch, so that a fuzz target reaches them.
#pragma once

#include <cstdint>

#include "quiver/io/safetensors.h"
#include "quiver/train/train_stats.h"

namespace quiver::train {

inline constexpr const char* kCheckpointHint = "; delete it to start anew";

/// What the trainer that reads a checkpoint has.
struct CheckpointShape {
  io::Dtype dtype = io::Dtype::kF32;  ///< of the values and of the optimiser's moments
  std::int64_t num_values = 0;        ///< P
  std::int64_t num_steps = 0;         ///< that the trainer runs
};

/// Checks a checkpoint completely but for its key and returns its figures. The tensors must be
///   values, first, second, best_values [P] of the dtype (best_values only with validations),
///   steps [1], counters [3] = (steps, tokens, rows) I64, losses [steps], seconds [1], validations [V, 2] = (step, loss) F64.
/// Throws kBadFormat, naming the file and either the tensor and both shapes or both numbers.
TrainStats checked_stats(const io::SafetensorsView& view, const CheckpointShape& shape);

}  // namespace quiver::train
