// The fuzz target of LoRA files of llama.cpp.
#pragma once

#include <vector>

#include "fuzz/support.h"
#include "quiver/adapters/gguf_lora.h"
#include "quiver/base/error.h"

namespace quiver::fuzz {

/// Parses, and dequantises the factors that are found.
inline void run_gguf_lora(std::span<const std::byte> bytes) {
  try {
    const auto view = io::GgufView::parse(bytes, "fuzz");
    const auto lora = adapters::parse_gguf_lora(view);
    for (const auto& [name, pair] : lora.pairs) {
      expect(pair.rank() >= 1, "a rank below 1");
      for (const auto* factor : {pair.lora_a, pair.lora_b}) {
        std::vector<float> values(static_cast<std::size_t>(factor->num_elements()));
        io::dequantize(*factor, values);
      }
    }
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
