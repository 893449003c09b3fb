// SmolLM 3: every fourth layer does not rotate.
#include <nlohmann/json.hpp>

#include "quiver/io/json.h"
#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// Whether each layer rotates: 1 in "no_rope_layers", else all but every so many.
std::vector<bool> smollm3_rotates(const Config& config, std::int64_t num_layers) {
  std::vector<bool> rotates;
  if (!config.has_value("no_rope_layers") || config.values().at("no_rope_layers").empty()) {
    const auto interval = config.count("no_rope_layer_interval", 4);
    refuse(interval < 1, config.origin(), "a no_rope_layer_interval below 1");
    for (std::int64_t i = 0; i < num_layers; ++i) rotates.push_back((i + 1) % interval != 0);
    return rotates;
  }
  const auto& list = io::require_array(config.values(), "no_rope_layers", config.origin());
  for (const auto& item : list) rotates.push_back(item == 1);
  refuse(std::ssize(list) != num_layers, config.origin(), "a no_rope_layers of another length than num_hidden_layers");
  return rotates;
}

/// Windows are of the layers that do not rotate, and off unless use_sliding_window. "layer_types" says otherwise.
ModelSpec smollm3_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec =
      common_from_json(config, {.family = "smollm3", .max_positions = 32768, .num_kv_heads = 4, .is_tied = true, .rope_theta = 2e6});
  auto rotates = smollm3_rotates(config, spec.num_layers());
  for (std::size_t i = 0; i < rotates.size(); ++i) spec.layers[i].rope = rotates[i] ? 0 : kNoRope;
  if (!config.flag("use_sliding_window", false)) return spec;
  auto is_sliding = rotates;
  is_sliding.flip();
  set_windows(spec, config.count("sliding_window", 0), sliding_layers(config, spec.num_layers()).value_or(is_sliding));
  return spec;
}

/// A file does not say which layers rotate: all but every fourth.
ModelSpec smollm3_from_gguf(const io::GgufView& gguf) {
  auto spec = common_from_gguf(GgufConfig(gguf), "smollm3");
  for (std::size_t i = 3; i < spec.layers.size(); i += 4) spec.layers[i].rope = kNoRope;
  return spec;
}

json smollm3_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "SmolLM3ForCausalLM");
  add_windows(spec, config);
  config["use_sliding_window"] = common_window(spec) > 0;
  json rotates = json::array();
  for (const auto& layer : spec.layers) rotates.push_back(layer.rope == kNoRope ? 0 : 1);
  config["no_rope_layers"] = std::move(rotates);
  return config;
}

}  // namespace

Family smollm3() {
  return {.model_type = "smollm3",
          .gguf_architecture = "smollm3",
          .from_json = smollm3_from_json,
          .from_gguf = smollm3_from_gguf,
          .to_json = smollm3_to_json,
          .has_paired_gguf_rows = true};
}

}  // namespace quiver::model
