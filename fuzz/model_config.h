// The fuzz targets of a model's configuration: config.json, and the metadata of a GGUF file.
#pragma once

#include <nlohmann/json.hpp>

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/model/families.h"

namespace quiver::fuzz {

/// Writes a configuration and reads it again: nothing may have changed.
inline void check_model_config(const model::ModelSpec& spec) {
  constexpr std::int64_t kLargestHead = 4096;  // larger ones are slow, not different
  const auto written = model::spec_to_json(spec);
  expect(model::spec_to_json(model::spec_from_json(written, "copy")) == written, "a configuration changed in a round trip");
  const auto& attention = spec.block.attention;
  if (attention.head_dim <= kLargestHead) model::rope_frequencies(attention.rope, attention.head_dim);
}

inline void run_model_config(std::span<const std::byte> bytes) {
  try {
    check_model_config(model::spec_from_json(io::parse_json(text_of(bytes), "fuzz"), "fuzz"));
  } catch (const Error&) {
  }
}

inline void run_gguf_config(std::span<const std::byte> bytes) {
  try {
    check_model_config(model::spec_from_gguf(io::GgufView::parse(bytes, "fuzz")));
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
