// The file of a training under way, as values. Free of libtorch, so that it runs under fuzzers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "quiver/io/safetensors.h"

namespace quiver::train {

/// The loss on the validation examples.
struct Validation {
  std::int64_t step = 0;  ///< steps done
  double loss = 0;
};

/// The metadata under which a checkpoint names what is trained.
inline constexpr const char* kCheckpointKey = "quiver.key";

/// A checkpoint. The tensors have one shape [P] and one dtype, float32 or float64.
struct Checkpoint {
  const io::TensorEntry* values = nullptr;
  const io::TensorEntry* first = nullptr;  ///< moments of AdamW
  const io::TensorEntry* second = nullptr;
  const io::TensorEntry* best_values = nullptr;  ///< nullptr without validation
  std::int64_t optimizer_steps = 0;
  std::int64_t steps = 0, tokens = 0, rows = 0;
  double seconds = 0;
  std::vector<double> losses;  ///< one per step
  std::vector<Validation> validations;
};

/// Reads a checkpoint, whose tensors point into `view`. Throws kBadFormat for a missing tensor, another shape or dtype than
/// Trainer::save writes, and counts that contradict each other.
Checkpoint parse_checkpoint(const io::SafetensorsView& view);

}  // namespace quiver::train
