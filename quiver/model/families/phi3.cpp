// Phi-3, 3.5 and 4-mini: Llama with fused maps, and LongRoPE.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// What no configuration says.
void set_phi3(ModelSpec& spec) {
  spec.block.attention.rows = QkvRows::kStacked;
  spec.block.mlp.is_fused = true;
}

ModelSpec phi3_from_json(const json& values, const std::string& origin) {
  // "su" and "yarn" are older names of longrope here, and the original context stands outside of the rope object.
  auto changed = values;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!changed.contains(key) || !changed[key].is_object()) continue;
    auto& rope = changed[key];
    const auto type = rope.value("rope_type", rope.value("type", json("default")));
    if (type != "su" && type != "yarn" && type != "longrope") continue;
    rope["rope_type"] = "longrope";
    rope["original_max_position_embeddings"] = values.value("original_max_position_embeddings", json(4096));
  }
  const Config config(changed, origin);
  auto spec = common_from_json(config, {.family = "phi3", .epsilon = 1e-5, .max_positions = 4096, .rotary_fraction = 1});
  set_phi3(spec);
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = spec.block.mlp.has_bias = false;
  set_windows(spec, config.count("sliding_window", 0), std::vector<bool>(spec.layers.size(), true));
  return spec;
}

/// The window of a file counts, as in transformers. llama.cpp leaves it out.
ModelSpec phi3_from_gguf(const io::GgufView& gguf) {
  auto spec = common_from_gguf(GgufConfig(gguf), "phi3", NormSpec::Kind::kRms, GgufWindows{});
  set_phi3(spec);
  return spec;
}

json phi3_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "Phi3ForCausalLM");
  config["partial_rotary_factor"] = rotary_share(spec);
  config["sliding_window"] = common_window(spec) > 0 ? json(common_window(spec)) : json();
  if (config.contains("rope_scaling")) {
    config["original_max_position_embeddings"] = config["rope_scaling"].value("original_max_position_embeddings", json(spec.max_positions));
  }
  return config;
}

}  // namespace

Family phi3() { return {"phi3", "phi3", phi3_from_json, phi3_from_gguf, phi3_to_json}; }

}  // namespace quiver::model
