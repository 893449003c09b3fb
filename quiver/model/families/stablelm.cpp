// StableLM 3B and 2: Llama with LayerNorms and a quarter of each head rotated.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"

namespace quiver::model {
namespace {

ModelSpec stablelm_from_json(const nlohmann::json& values, const std::string& origin) {
  const Config config(values, origin);
  config.refuse_switches({"qk_layernorm"});
  auto spec = common_from_json(config, {.family = "stablelm",
                                        .epsilon = 1e-5,
                                        .epsilon_key = "layer_norm_eps",
                                        .max_positions = 4096,
                                        .num_kv_heads = 32,
                                        .rotary_fraction = 0.25});
  spec.block.norm.kind = NormSpec::Kind::kLayer;
  if (config.flag("use_parallel_residual", false)) spec.block.topology = Topology::kParallelShared;
  spec.block.attention.has_qkv_bias = config.flag("use_qkv_bias", false);
  spec.block.attention.has_output_bias = spec.block.mlp.has_bias = false;
  return spec;
}

}  // namespace

Family stablelm() { return {"stablelm", nullptr, stablelm_from_json}; }

}  // namespace quiver::model
