// The fuzz target of a training's checkpoint.
#pragma once

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/safetensors.h"
#include "quiver/train/checkpoint_file.h"

namespace quiver::fuzz {

/// The trainer that asks: five parameters, four steps.
inline constexpr train::CheckpointShape kFuzzedShape{.dtype = io::Dtype::kF32, .num_values = 5, .num_steps = 4};

inline void run_checkpoint(std::span<const std::byte> bytes) {
  try {
    const auto stats = train::checked_stats(io::SafetensorsView::parse(bytes, "fuzz"), kFuzzedShape);
    expect(stats.steps >= 0 && stats.steps <= kFuzzedShape.num_steps && std::ssize(stats.losses) == stats.steps, "steps without losses");
    expect(stats.best_step >= 0 && stats.best_step <= stats.steps, "the best step is none of the steps");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
