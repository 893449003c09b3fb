// GPT-NeoX and Pythia: attention and MLP side by side, queries, keys and values of a head together.
#include <nlohmann/json.hpp>

#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// What no configuration says.
void set_gpt_neox(ModelSpec& spec) {
  spec.block.attention.rows = QkvRows::kByHead;
  spec.block.mlp.is_gated = false;
  spec.names.prefix = "";
  spec.names.blocks = "gpt_neox.layers";
  spec.names.embedding = "gpt_neox.embed_in";
  spec.names.final_norm = "gpt_neox.final_layer_norm";
  spec.names.head = "embed_out";
  spec.names.qkv = "attention.query_key_value";
  spec.names.query = "attention.q_proj";
  spec.names.key = "attention.k_proj";
  spec.names.value = "attention.v_proj";
  spec.names.output = "attention.dense";
  spec.names.up = "mlp.dense_h_to_4h";
  spec.names.down = "mlp.dense_4h_to_h";
}

Topology gpt_neox_topology(bool use_parallel_residual) { return use_parallel_residual ? Topology::kParallel : Topology::kSequential; }

ModelSpec gpt_neox_from_json(const json& values, const std::string& origin) {
  // The rotation has keys of its own here, outside of the rope object.
  auto changed = values;
  changed["rope_theta"] = values.value("rotary_emb_base", json(10000));
  changed["partial_rotary_factor"] = values.value("rotary_pct", json(0.25));
  changed.erase("num_key_value_heads");
  const Config config(changed, origin);
  auto spec = common_from_json(
      config, {.family = "gpt_neox", .epsilon = 1e-5, .epsilon_key = "layer_norm_eps", .activation = "gelu", .rotary_fraction = 0.25});
  spec.block.norm.kind = NormSpec::Kind::kLayer;
  spec.block.topology = gpt_neox_topology(config.flag("use_parallel_residual", true));
  spec.block.attention.has_qkv_bias = spec.block.attention.has_output_bias = config.flag("attention_bias", true);
  spec.block.mlp.has_bias = true;
  set_gpt_neox(spec);
  return spec;
}

/// With the GELU of transformers. llama.cpp computes another one for these models.
ModelSpec gpt_neox_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  auto spec = common_from_gguf(config, "gpt_neox", NormSpec::Kind::kLayer);
  spec.block.topology = gpt_neox_topology(config.require_flag("use_parallel_residual"));
  spec.block.mlp.activation = backend::Activation::kGelu;
  set_gpt_neox(spec);
  return spec;
}

json gpt_neox_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "GPTNeoXForCausalLM", {.epsilon = "layer_norm_eps"});
  config["rotary_emb_base"] = spec.ropes.front().theta;
  config["rotary_pct"] = rotary_share(spec);
  config["use_parallel_residual"] = spec.block.topology == Topology::kParallel;
  return config;
}

}  // namespace

Family gpt_neox() {
  return {.model_type = "gpt_neox",
          .gguf_architecture = "gptneox",
          .from_json = gpt_neox_from_json,
          .from_gguf = gpt_neox_from_gguf,
          .to_json = gpt_neox_to_json,
          .has_qkv_by_head = true};
}

}  // namespace quiver::model
