// The fuzz targets of a model's configuration: config.json, and the metadata of a GGUF file.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/model/families.h"
#include "quiver/model/gguf_slots.h"

namespace quiver::fuzz {

/// Writes a configuration and reads it again, where one describes the model: nothing may have changed.
inline void check_model_config(const model::ModelSpec& spec) {
  constexpr std::int64_t kLargestHead = 4096;  // larger ones are slow, not different
  try {
    const auto written = model::spec_to_json(spec);
    expect(model::spec_to_json(model::spec_from_json(written, "copy")) == written, "a configuration changed in a round trip");
  } catch (const Error& error) {
    expect(error.kind() == ErrorKind::kUnsupported, "the only reason for no configuration is a model as no config.json describes");
  }
  model::essence(spec);
  model::block_linears(spec);
  for (const auto& rope : spec.ropes) {
    if (rope.rotary_dim <= kLargestHead) model::rope_frequencies(rope, spec.max_positions);
  }
}

inline void run_model_config(std::span<const std::byte> bytes) {
  try {
    check_model_config(model::spec_from_json(io::parse_json(text_of(bytes), "fuzz"), "fuzz"));
  } catch (const Error&) {
  }
}

inline void run_gguf_config(std::span<const std::byte> bytes) {
  try {
    const auto spec = model::spec_from_gguf(io::GgufView::parse(bytes, "fuzz"));
    check_model_config(spec);
    std::set<std::string> names;
    for (const auto& slot : model::gguf_slots(spec)) expect(names.insert(slot.gguf).second, "two tensors of a model have one name in GGUF");
    for (const auto& slot : model::gguf_fused_slots(spec)) expect(names.insert(slot.gguf).second, "a fused map has the name of another");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
