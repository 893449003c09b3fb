// Phi-1, 1.5 and 2: attention and MLP side by side behind one LayerNorm, biases everywhere.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"

namespace quiver::model {
namespace {

ModelSpec phi_from_json(const nlohmann::json& values, const std::string& origin) {
  const Config config(values, origin);
  config.refuse_switches({"qk_layernorm"});
  auto spec = common_from_json(
      config, {.family = "phi", .epsilon = 1e-5, .epsilon_key = "layer_norm_eps", .activation = "gelu_new", .rotary_fraction = 0.5});
  spec.block.norm.kind = NormSpec::Kind::kLayer;
  spec.block.topology = Topology::kParallelShared;
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = spec.block.mlp.has_bias = true;
  spec.block.mlp.is_gated = false;
  spec.edges.has_head_bias = true;
  spec.names.final_norm = "final_layernorm";
  spec.names.output = "self_attn.dense";
  spec.names.up = "mlp.fc1";
  spec.names.down = "mlp.fc2";
  return spec;
}

}  // namespace

Family phi() { return {"phi", nullptr, phi_from_json}; }

}  // namespace quiver::model
