// Llama 2 and 3, Mistral without a window, and what is built like them: RMSNorm, SwiGLU, rotary positions, no biases.
#include <nlohmann/json.hpp>

#include "quiver/io/json.h"
#include "quiver/model/families/common.h"

namespace quiver::model {
namespace {

using nlohmann::json;

ModelSpec llama_from_json(const json& config, const std::string& origin) {
  for (const char* key : {"attention_bias", "mlp_bias"}) refuse(io::find_bool(config, key, origin).value_or(false), origin, key);
  return common_from_json(config, origin, "llama");
}

ModelSpec llama_from_gguf(const io::GgufView& gguf) { return common_from_gguf(gguf, "llama", "llama"); }

json llama_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "llama", "LlamaForCausalLM");
  config["attention_bias"] = config["mlp_bias"] = false;
  return config;
}

}  // namespace

Family llama() { return {"llama", "llama", llama_from_json, llama_from_gguf, llama_to_json, /*has_paired_gguf_rows=*/true}; }
Family mistral() { return {"mistral", nullptr, llama_from_json, nullptr, llama_to_json}; }

}  // namespace quiver::model
