// The fuzz target of a training under way.
#pragma once

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/safetensors.h"
#include "quiver/train/checkpoint.h"

namespace quiver::fuzz {

inline void run_checkpoint(std::span<const std::byte> bytes) {
  try {
    const auto view = io::SafetensorsView::parse(bytes, "fuzz");
    const auto checkpoint = train::parse_checkpoint(view);
    for (const auto* entry : {checkpoint.values, checkpoint.first, checkpoint.second, checkpoint.best_values}) {
      if (entry != nullptr) touch_every_byte(entry->data);
    }
    expect(checkpoint.steps == static_cast<std::int64_t>(checkpoint.losses.size()), "not a loss for every step");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
