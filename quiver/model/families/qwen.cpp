// Qwen 2, 2.5 and 3.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// Windows are off unless use_sliding_window; then layers from max_window_layers on have one. "layer_types" says otherwise.
void qwen_windows(const Config& config, ModelSpec& spec) {
  if (!config.flag("use_sliding_window", false)) return;
  const auto window = config.has("sliding_window") ? config.count("sliding_window", 0) : 4096;
  std::vector<bool> is_sliding;
  for (std::int64_t i = 0; i < spec.num_layers(); ++i) is_sliding.push_back(i >= config.count("max_window_layers", 28));
  set_windows(spec, window, sliding_layers(config, spec.num_layers()).value_or(is_sliding));
}

ModelSpec qwen2_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec = common_from_json(config, {.family = "qwen2", .max_positions = 32768, .num_kv_heads = 32});
  spec.block.attention.has_qkv_bias = true;
  spec.block.attention.has_output_bias = spec.block.mlp.has_bias = false;
  qwen_windows(config, spec);
  return spec;
}

ModelSpec qwen3_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec = common_from_json(config, {.family = "qwen3", .max_positions = 32768, .num_kv_heads = 32, .head_dim = 128});
  spec.block.attention.qk_norm = QkNorm::kHead;
  spec.block.mlp.has_bias = false;
  qwen_windows(config, spec);
  return spec;
}

ModelSpec qwen2_from_gguf(const io::GgufView& gguf) { return common_from_gguf(GgufConfig(gguf), "qwen2"); }

ModelSpec qwen3_from_gguf(const io::GgufView& gguf) {
  auto spec = common_from_gguf(GgufConfig(gguf), "qwen3");
  spec.block.attention.qk_norm = QkNorm::kHead;
  return spec;
}

json qwen_to_json(const ModelSpec& spec, const char* architecture) {
  auto config = common_to_json(spec, architecture);
  add_windows(spec, config);
  config["use_sliding_window"] = common_window(spec) > 0;
  return config;
}
json qwen2_to_json(const ModelSpec& spec) { return qwen_to_json(spec, "Qwen2ForCausalLM"); }
json qwen3_to_json(const ModelSpec& spec) { return qwen_to_json(spec, "Qwen3ForCausalLM"); }

}  // namespace

Family qwen2() { return {"qwen2", "qwen2", qwen2_from_json, qwen2_from_gguf, qwen2_to_json}; }
Family qwen3() { return {"qwen3", "qwen3", qwen3_from_json, qwen3_from_gguf, qwen3_to_json}; }

}  // namespace quiver::model
