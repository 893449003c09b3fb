// Gemma 1, 2 and the text of 3: norm weights are stored as offsets from 1, embeddings are scaled by sqrt(d).
#include <cmath>
#include <nlohmann/json.hpp>

#include "quiver/io/json.h"
#include "quiver/model/families/common.h"
#include "quiver/model/families/gguf.h"

namespace quiver::model {
namespace {

using nlohmann::json;

double gemma_embedding_scale(const ModelSpec& spec) { return std::sqrt(static_cast<double>(spec.hidden_size)); }

/// What no configuration says of Gemma 2 and 3.
void set_gemma_later(ModelSpec& spec) {
  spec.block.places = NormPlaces::kBeforeAndAfter;
  spec.names.attention_post_norm = "post_attention_layernorm";
  spec.names.mlp_norm = "pre_feedforward_layernorm";
  spec.names.mlp_post_norm = "post_feedforward_layernorm";
}

ModelSpec gemma_common(const Config& config, Defaults defaults) {
  config.refuse_switches({"use_bidirectional_attention"});
  defaults.activation = "gelu_pytorch_tanh";
  defaults.head_dim = 256;
  defaults.is_tied = true;
  auto spec = common_from_json(config, defaults);
  spec.block.mlp.has_bias = false;
  spec.edges.embedding_scale = gemma_embedding_scale(spec);
  return spec;
}

ModelSpec gemma_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  const char* key = config.has_value("hidden_activation") ? "hidden_activation" : "hidden_act";
  return gemma_common(config, {.family = "gemma", .max_positions = 8192, .num_kv_heads = 16, .activation_key = key});
}

/// What Gemma 2 and 3 share: norms on both sides of the branches, the scale of scores, caps and windows.
ModelSpec gemma_later(const Config& config, const Defaults& defaults, double logit_cap, std::int64_t pattern) {
  auto spec = gemma_common(config, defaults);
  set_gemma_later(spec);
  spec.block.attention.scale = 1 / std::sqrt(config.number("query_pre_attn_scalar", 256));
  spec.edges.logit_cap = config.has("final_logit_softcapping") ? config.number("final_logit_softcapping", 0) : logit_cap;
  std::vector<bool> is_sliding;  // all but every `pattern`-th
  refuse(pattern < 1, config.origin(), "a sliding_window_pattern below 1");
  for (std::int64_t i = 0; i < spec.num_layers(); ++i) is_sliding.push_back((i + 1) % pattern != 0);
  set_windows(spec, config.has("sliding_window") ? config.count("sliding_window", 0) : 4096,
              sliding_layers(config, spec.num_layers()).value_or(is_sliding));
  return spec;
}

ModelSpec gemma2_from_json(const json& values, const std::string& origin) {
  const Config config(values, origin);
  auto spec =
      gemma_later(config, {.family = "gemma2", .max_positions = 8192, .num_kv_heads = 4, .activation_key = "hidden_activation"}, 30, 2);
  spec.block.attention.cap = config.has("attn_logit_softcapping") ? config.number("attn_logit_softcapping", 0) : 50;
  return spec;
}

/// Layers without a window have a rotation of their own, the first.
void set_gemma3_ropes(ModelSpec& spec) {
  for (auto& layer : spec.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

/// transformers reads no attn_logit_softcapping here.
ModelSpec gemma3_from_json(const json& values, const std::string& origin) {
  auto plain = values;
  const auto ropes = values.value("rope_parameters", json());
  for (const char* key : {"rope_parameters", "rope_scaling", "rope_theta"}) plain.erase(key);
  const Config config(values, origin), without_ropes(plain, origin);
  auto spec = gemma_later(without_ropes,
                          {.family = "gemma3_text", .max_positions = 131072, .num_kv_heads = 4, .activation_key = "hidden_activation"}, 0,
                          config.count("sliding_window_pattern", config.count("_sliding_window_pattern", 6)));
  spec.block.attention.qk_norm = QkNorm::kHead;
  const auto rope = [&](const char* layers, const char* scaling, const char* theta_key, double theta) {
    json given = ropes.is_object() && ropes.contains(layers) ? io::require_object(ropes, layers, origin) : json::object();
    if (scaling != nullptr && config.has_value(scaling)) given.update(io::require_object(values, scaling, origin));
    if (!given.contains("rope_theta")) given["rope_theta"] = config.number(theta_key, theta);
    return rope_from_json(without_ropes, given, {.head_dim = spec.block.attention.head_dim, .max_positions = spec.max_positions});
  };
  spec.ropes = {rope("full_attention", "rope_scaling", "rope_theta", 1e6), rope("sliding_attention", nullptr, "rope_local_base_freq", 1e4)};
  set_gemma3_ropes(spec);
  return spec;
}

/// Norm weights in GGUF files have the 1 in them.
ModelSpec gemma_common_from_gguf(const GgufConfig& config, const char* family, const std::optional<GgufWindows>& windows = {}) {
  auto spec = common_from_gguf(config, family, NormSpec::Kind::kRms, windows);
  spec.block.mlp.activation = backend::Activation::kGeluTanh;
  spec.edges.embedding_scale = gemma_embedding_scale(spec);
  return spec;
}

ModelSpec gemma_from_gguf(const io::GgufView& gguf) { return gemma_common_from_gguf(GgufConfig(gguf), "gemma"); }

/// A file has no query_pre_attn_scalar. It is the head size in all models but the one of `wide_layers` layers, where it is the share of a
/// head.
ModelSpec gemma_later_from_gguf(const GgufConfig& config, const char* family, const GgufWindows& windows, std::int64_t wide_layers) {
  auto spec = gemma_common_from_gguf(config, family, windows);
  set_gemma_later(spec);
  read_attention_scale(config, spec);
  auto& attention = spec.block.attention;
  if (attention.scale) {  // 1 / sqrt(a whole number), rounded to float32
    const double exact = 1 / std::sqrt(std::round(1 / (*attention.scale * *attention.scale)));
    if (static_cast<float>(exact) == static_cast<float>(*attention.scale)) attention.scale = exact;
  }
  if (!attention.scale && spec.num_layers() == wide_layers && attention.num_heads > 0) {
    const auto share_of_width = spec.hidden_size / attention.num_heads;
    attention.scale = 1 / std::sqrt(static_cast<double>(share_of_width));
  }
  return spec;
}

ModelSpec gemma2_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  auto spec = gemma_later_from_gguf(config, "gemma2", {.window = 4096, .period = 2}, 46);
  spec.block.attention.cap = config.number("attn_logit_softcapping", 50);
  spec.edges.logit_cap = config.number("final_logit_softcapping", 30);
  return spec;
}

ModelSpec gemma3_from_gguf(const io::GgufView& gguf) {
  const GgufConfig config(gguf);
  auto spec = gemma_later_from_gguf(config, "gemma3_text", {.period = 6}, 62);
  spec.block.attention.qk_norm = QkNorm::kHead;
  spec.edges.logit_cap = config.number("final_logit_softcapping", 0);
  RopeSpec local;
  local.theta = config.number("rope.freq_base_swa", 10000);
  local.rotary_dim = spec.ropes.front().rotary_dim;
  spec.ropes.push_back(local);
  set_gemma3_ropes(spec);
  return spec;
}

json gemma_to_json(const ModelSpec& spec) {
  auto config = common_to_json(spec, "GemmaForCausalLM");
  config["hidden_activation"] = config["hidden_act"];
  return config;
}

json cap_to_json(double cap) { return cap > 0 ? json(cap) : json(); }

json gemma_later_to_json(const ModelSpec& spec, const char* architecture) {
  auto config = common_to_json(spec, architecture, {.activation = "hidden_activation"});
  add_windows(spec, config);
  const auto scale = spec.block.attention.score_scale();
  config["query_pre_attn_scalar"] = count_to_json(std::round(1 / (scale * scale)));  // transformers takes whole numbers only
  config["attn_logit_softcapping"] = cap_to_json(spec.block.attention.cap);
  config["final_logit_softcapping"] = cap_to_json(spec.edges.logit_cap);
  return config;
}

json gemma2_to_json(const ModelSpec& spec) { return gemma_later_to_json(spec, "Gemma2ForCausalLM"); }

json gemma3_to_json(const ModelSpec& spec) {
  auto config = gemma_later_to_json(spec, "Gemma3ForCausalLM");
  config["rope_local_base_freq"] = spec.ropes.at(1).theta;
  return config;
}

}  // namespace

Family gemma() {
  return {.model_type = "gemma",
          .gguf_architecture = "gemma",
          .from_json = gemma_from_json,
          .from_gguf = gemma_from_gguf,
          .to_json = gemma_to_json,
          .norm_offset = 1};
}
Family gemma2() {
  return {.model_type = "gemma2",
          .gguf_architecture = "gemma2",
          .from_json = gemma2_from_json,
          .from_gguf = gemma2_from_gguf,
          .to_json = gemma2_to_json,
          .norm_offset = 1};
}
Family gemma3_text() {
  return {.model_type = "gemma3_text",
          .gguf_architecture = "gemma3",
          .from_json = gemma3_from_json,
          .from_gguf = gemma3_from_gguf,
          .to_json = gemma3_to_json,
          .norm_offset = 1};
}

}  // namespace quiver::model
