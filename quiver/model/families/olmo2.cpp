// OLMo 2: norms after the branches alone, and norms of whole queries and keys.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

/// What no configuration says.
void set_olmo2(ModelSpec& spec) {
  spec.block.places = NormPlaces::kAfter;
  spec.block.attention.qk_norm = QkNorm::kWidth;
  spec.names.attention_norm = spec.names.mlp_norm = nullptr;
  spec.names.attention_post_norm = "post_attention_layernorm";
  spec.names.mlp_post_norm = "post_feedforward_layernorm";
}

ModelSpec olmo2_from_json(const nlohmann::json& values, const std::string& origin) {
  auto spec = common_from_json(Config(values, origin), {.family = "olmo2", .epsilon = 1e-5});
  spec.block.mlp.has_bias = false;
  set_olmo2(spec);
  return spec;
}

ModelSpec olmo2_from_gguf(const io::GgufView& gguf) {
  auto spec = common_from_gguf(GgufConfig(gguf), "olmo2");  // those of OLMo 3 have windows, and are refused
  set_olmo2(spec);
  return spec;
}

nlohmann::json olmo2_to_json(const ModelSpec& spec) { return common_to_json(spec, "Olmo2ForCausalLM"); }

}  // namespace

Family olmo2() { return {"olmo2", "olmo2", olmo2_from_json, olmo2_from_gguf, olmo2_to_json}; }

}  // namespace quiver::model
