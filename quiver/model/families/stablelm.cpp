// StableLM 3B and 2: Llama with LayerNorms and a quarter of each head rotated.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

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

/// Whether the branches stand side by side is told by the norm of the MLP, which these models lack.
ModelSpec stablelm_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  config.refuse_in_block("attn_q_norm");
  auto spec = common_from_gguf(config, "stablelm", NormSpec::Kind::kLayer);
  if (!config.has_tensor("blk.0.ffn_norm.weight")) spec.block.topology = Topology::kParallelShared;
  return spec;
}

nlohmann::json stablelm_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "StableLmForCausalLM", {.epsilon = "layer_norm_eps"});
  config["partial_rotary_factor"] = rotary_share(spec);
  config["use_parallel_residual"] = spec.block.topology == Topology::kParallelShared;
  config["use_qkv_bias"] = spec.block.attention.has_qkv_bias;
  return config;
}

}  // namespace

Family stablelm() { return {"stablelm", "stablelm", stablelm_from_json, stablelm_from_gguf, stablelm_to_json}; }

}  // namespace quiver::model
