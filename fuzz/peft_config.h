// The fuzz targets of patterns and of adapter_config.json.
#pragma once

#include <string>

#include "fuzz/support.h"
#include "quiver/adapters/peft_config.h"
#include "quiver/base/error.h"
#include "quiver/regex/python_pattern.h"

namespace quiver::fuzz {

/// A Python pattern up to the first zero byte, then a name.
inline void run_python_pattern(std::span<const std::byte> bytes) {
  const auto all = text_of(bytes);
  const auto zero = all.find('\0');
  const auto name = zero == std::string_view::npos ? std::string_view("model.layers.1.self_attn.q_proj") : all.substr(zero + 1);
  try {
    const regex::PythonPattern pattern(all.substr(0, zero), "fuzz");
    const bool is_whole = pattern.full_match(name);
    expect(!is_whole || pattern.match(name), "a match of the whole text is no match at its start");
    if (const auto group = pattern.last_group(name)) expect(name.find(*group) != std::string_view::npos, "a group outside the text");
  } catch (const Error&) {
  }
}

/// Parses, and asks of some modules what the configuration says of them.
inline void run_peft_config(std::span<const std::byte> bytes) {
  try {
    const auto config = adapters::parse_peft_config(text_of(bytes), "fuzz");
    for (const std::string module :
         {"", "q_proj", "lm_head", "model.layers.0.self_attn.q_proj", "model.layers.12.mlp.experts.3.down_proj", "a\nb.1.c"}) {
      expect(config.rank_of(module) >= 1, "a rank below 1");
      config.alpha_of(module);
      config.selects(module);
    }
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
