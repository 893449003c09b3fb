// Phi-1, 1.5 and 2: attention and MLP side by side behind one LayerNorm, biases everywhere.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

/// What no configuration says.
void set_phi(ModelSpec& spec) {
  spec.block.norm.kind = NormSpec::Kind::kLayer;
  spec.block.topology = Topology::kParallelShared;
  spec.block.mlp.is_gated = false;
  spec.names.final_norm = "final_layernorm";
  spec.names.output = "self_attn.dense";
  spec.names.up = "mlp.fc1";
  spec.names.down = "mlp.fc2";
}

ModelSpec phi_from_json(const nlohmann::json& values, const std::string& origin) {
  const Config config(values, origin);
  config.refuse_switches({"qk_layernorm"});
  auto spec = common_from_json(
      config, {.family = "phi", .epsilon = 1e-5, .epsilon_key = "layer_norm_eps", .activation = "gelu_new", .rotary_fraction = 0.5});
  set_phi(spec);
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = spec.block.mlp.has_bias = true;
  spec.edges.has_head_bias = true;
  return spec;
}

ModelSpec phi_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  config.refuse_in_block("attn_q_norm");
  auto spec = common_from_gguf(config, "phi", NormSpec::Kind::kLayer);
  spec.block.mlp.activation = backend::Activation::kGeluTanh;
  set_phi(spec);
  return spec;
}

nlohmann::json phi_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "PhiForCausalLM", {.epsilon = "layer_norm_eps"});
  config["partial_rotary_factor"] = rotary_share(spec);
  return config;
}

}  // namespace

Family phi() { return {"phi", "phi2", phi_from_json, phi_from_gguf, phi_to_json}; }

}  // namespace quiver::model
