// GPT-2 and GPT-Neo: learned positions, LayerNorms, a plain MLP.
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// Llama's keys, and those of a family in their place.
using KeyPairs = std::span<const std::pair<const char*, const char*>>;
constexpr std::pair<const char*, const char*> kGpt2Keys[] = {{"hidden_size", "n_embd"},
                                                             {"num_hidden_layers", "n_layer"},
                                                             {"num_attention_heads", "n_head"},
                                                             {"max_position_embeddings", "n_positions"},
                                                             {"intermediate_size", "n_inner"}};
constexpr std::pair<const char*, const char*> kGptNeoKeys[] = {{"num_hidden_layers", "num_layers"}, {"num_attention_heads", "num_heads"}};

/// The configuration by Llama's keys.
json gpt_renamed(const json& values, KeyPairs names) {
  json renamed = values;
  for (const auto& [ours, theirs] : names) {
    if (values.contains(theirs)) renamed[ours] = values.at(theirs);
  }
  const auto width = renamed.value("hidden_size", json());
  if (renamed.value("intermediate_size", json()).is_null() && width.is_number_integer() && width <= kMaxDimension && width > 0) {
    renamed["intermediate_size"] = 4 * width.get<std::int64_t>();
  }
  for (const char* key : {"num_key_value_heads", "head_dim"}) renamed.erase(key);
  return renamed;
}

/// What no configuration says.
void set_gpt(ModelSpec& spec) {
  spec.block.norm.kind = NormSpec::Kind::kLayer;
  spec.block.mlp.is_gated = false;
  spec.edges.has_positions = true;
  spec.ropes.clear();
  for (auto& layer : spec.layers) layer.rope = kNoRope;
  spec.names.prefix = "";
  spec.names.embedding = "transformer.wte";
  spec.names.positions = "transformer.wpe";
  spec.names.blocks = "transformer.h";
  spec.names.final_norm = "transformer.ln_f";
  spec.names.attention_norm = "ln_1";
  spec.names.mlp_norm = "ln_2";
  spec.names.up = "mlp.c_fc";
  spec.names.down = "mlp.c_proj";
}

void set_gpt2(ModelSpec& spec) {
  spec.block.attention.rows = QkvRows::kStacked;
  spec.names.qkv = "attn.c_attn";
  spec.names.query = "attn.q_proj";
  spec.names.key = "attn.k_proj";
  spec.names.value = "attn.v_proj";
  spec.names.output = "attn.c_proj";
}

ModelSpec gpt_common(const Config& config, const char* family, std::int64_t max_positions) {
  auto spec = common_from_json(config, {.family = family,
                                        .epsilon = 1e-5,
                                        .epsilon_key = "layer_norm_epsilon",
                                        .max_positions = max_positions,
                                        .activation = "gelu_new",
                                        .activation_key = "activation_function",
                                        .is_tied = true});
  spec.block.attention.has_output_bias = spec.block.mlp.has_bias = true;
  set_gpt(spec);
  return spec;
}

ModelSpec gpt2_from_json(const json& values, const std::string& origin) {
  const auto renamed = gpt_renamed(values, kGpt2Keys);
  const Config config(renamed, origin);
  config.refuse_switches({"scale_attn_by_inverse_layer_idx", "add_cross_attention"});
  auto spec = gpt_common(config, "gpt2", 1024);
  spec.block.attention.has_qkv_bias = true;
  if (!config.flag("scale_attn_weights", true)) spec.block.attention.scale = 1;
  set_gpt2(spec);
  return spec;
}

ModelSpec gpt2_from_gguf(const io::GgufView& gguf) {
  auto spec = common_from_gguf(GgufConfig(gguf), "gpt2", NormSpec::Kind::kLayer);
  spec.block.mlp.activation = backend::Activation::kGeluTanh;
  set_gpt(spec);
  set_gpt2(spec);
  return spec;
}

/// Whether each layer has a window: [[["global", "local"], 2]] is global, local, global, local.
std::vector<bool> gpt_neo_local(const Config& config) {
  std::vector<bool> is_local;
  for (const auto& item : io::require_array(config.values(), "attention_types", config.origin())) {
    const bool has_form = item.is_array() && item.size() == 2 && item[0].is_array() && item[1].is_number_integer();
    if (!has_form || item[1] < 0 || item[1] > kMaxLayers || item[0].size() > static_cast<std::size_t>(kMaxLayers)) {
      fail(ErrorKind::kBadFormat, "{}: attention_types holds {}; expected [[\"global\", \"local\"], COUNT]", config.origin(),
           item.dump().substr(0, 80));
    }
    for (std::int64_t i = 0; i < item[1].get<std::int64_t>(); ++i) {
      for (const auto& type : item[0]) {
        refuse(type != "global" && type != "local", config.origin(), "attention of type " + type.dump());
        is_local.push_back(type == "local");
        if (std::ssize(is_local) > kMaxLayers) return is_local;
      }
    }
  }
  return is_local;
}

ModelSpec gpt_neo_from_json(const json& values, const std::string& origin) {
  const auto renamed = gpt_renamed(values, kGptNeoKeys);
  const Config config(renamed, origin);
  auto spec = gpt_common(config, "gpt_neo", 2048);
  spec.block.attention.has_qkv_bias = false;
  spec.block.attention.scale = 1;
  const auto is_local = gpt_neo_local(config);
  if (is_local.size() != spec.layers.size()) {
    fail(ErrorKind::kBadFormat, "{}: attention_types describes {} layers of {}; expected one each", origin, is_local.size(),
         spec.num_layers());
  }
  set_windows(spec, config.count("window_size", 256), is_local);
  spec.names.query = "attn.attention.q_proj";
  spec.names.key = "attn.attention.k_proj";
  spec.names.value = "attn.attention.v_proj";
  spec.names.qkv = "attn.attention.qkv_proj";
  spec.names.output = "attn.attention.out_proj";
  return spec;
}

json gpt_to_json(const ModelSpec& spec, const char* architecture, KeyPairs names) {
  auto config = common_to_json(spec, architecture, {.epsilon = "layer_norm_epsilon", .activation = "activation_function"});
  for (const auto& [ours, theirs] : names) {
    config[theirs] = config.at(ours);
    config.erase(ours);
  }
  return config;
}

json gpt2_to_json(const ModelSpec& spec) {
  auto config = gpt_to_json(spec, "GPT2LMHeadModel", kGpt2Keys);
  config["scale_attn_weights"] = spec.block.attention.scale != 1;
  return config;
}

json gpt_neo_to_json(const ModelSpec& spec) {
  auto config = gpt_to_json(spec, "GPTNeoForCausalLM", kGptNeoKeys);
  const auto window = common_window(spec);
  if (window > 0) config["window_size"] = window;
  json types = json::array();
  for (const auto& layer : spec.layers) types.push_back(layer.window > 0 ? "local" : "global");
  config["attention_types"] = json::array({json::array({types, 1})});
  return config;
}

}  // namespace

Family gpt2() {
  return {.model_type = "gpt2",
          .gguf_architecture = "gpt2",
          .from_json = gpt2_from_json,
          .from_gguf = gpt2_from_gguf,
          .to_json = gpt2_to_json,
          .has_transposed_weights = true};
}
Family gpt_neo() {
  return {.model_type = "gpt_neo", .from_json = gpt_neo_from_json, .to_json = gpt_neo_to_json};
}  // llama.cpp has no such architecture

}  // namespace quiver::model
