// Llama 2 and 3, and Mistral.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

ModelSpec llama_from_json(const json& values, const std::string& origin) {
  return common_from_json(Config(values, origin), {.family = "llama"});
}

/// Also of Mistral's files, which do not tell that they are.
ModelSpec llama_from_gguf(const io::GgufView& gguf) { return common_from_gguf(GgufConfig(gguf), "llama"); }

json llama_to_json(const ModelSpec& spec) { return common_to_json(spec, "LlamaForCausalLM"); }

/// A window on all layers, of 4096 where the key is absent; null is none. "layer_types" says otherwise.
ModelSpec mistral_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec = common_from_json(config, {.family = "mistral", .max_positions = 131072, .num_kv_heads = 8});
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = spec.block.mlp.has_bias = false;
  const auto window = config.has("sliding_window") ? config.count("sliding_window", 0) : 4096;
  set_windows(spec, window, sliding_layers(config, spec.num_layers()).value_or(std::vector<bool>(spec.layers.size(), true)));
  return spec;
}

json mistral_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "MistralForCausalLM");
  add_windows(spec, config);
  return config;
}

}  // namespace

Family llama() {
  return {.model_type = "llama",
          .gguf_architecture = "llama",
          .from_json = llama_from_json,
          .from_gguf = llama_from_gguf,
          .to_json = llama_to_json,
          .has_paired_gguf_rows = true};
}
Family mistral() { return {.model_type = "mistral", .from_json = mistral_from_json, .to_json = mistral_to_json}; }

}  // namespace quiver::model
