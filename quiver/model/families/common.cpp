#include "quiver/model/families/common.h"

#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::model {

using nlohmann::json;

void refuse(bool condition, const std::string& origin, const std::string& what) {
  if (condition) {
    fail(ErrorKind::kUnsupported, "{}: {} is not supported; expected a plain Llama (RMSNorm, SwiGLU, rotary, no biases)", origin, what);
  }
}

namespace {

RopeSpec rope_from_json(const json& config, const std::string& origin) {
  RopeSpec rope;
  rope.theta = io::find_double(config, "rope_theta", origin).value_or(10000.0);
  // transformers takes rope_parameters only where rope_scaling says nothing.
  const bool has_scaling = config.contains("rope_scaling") && !config.at("rope_scaling").empty();
  const char* key = has_scaling ? "rope_scaling" : "rope_parameters";
  if (!config.contains(key) || config.at(key).is_null()) return rope;
  const json& given = io::require_object(config, key, origin);
  rope.theta = io::find_double(given, "rope_theta", origin).value_or(rope.theta);
  auto type = io::find_string(given, "rope_type", origin);
  if (!type) type = io::find_string(given, "type", origin);  // the older spelling
  refuse(io::find_double(given, "partial_rotary_factor", origin).value_or(1) != 1, origin, "a partial_rotary_factor other than 1");
  const std::string name = type.value_or("default");
  if (name == "linear") {
    rope.type = RopeSpec::Type::kLinear;
    rope.factor = io::require_double(given, "factor", origin);
  } else if (name == "llama3") {
    rope.type = RopeSpec::Type::kLlama3;
    rope.factor = io::require_double(given, "factor", origin);
    rope.low_freq_factor = io::require_double(given, "low_freq_factor", origin);
    rope.high_freq_factor = io::require_double(given, "high_freq_factor", origin);
    rope.original_context = io::require_double(given, "original_max_position_embeddings", origin);
  } else if (name != "default") {
    fail(ErrorKind::kUnsupported, "{}: rope type '{}' is not supported; expected default, linear or llama3", origin, name);
  }
  return rope;
}

}  // namespace

ModelSpec common_from_json(const json& config, const std::string& origin, const char* family) {
  refuse(config.contains("sliding_window") && !config.at("sliding_window").is_null(), origin, "sliding_window");
  refuse(config.contains("quantization_config") && !config.at("quantization_config").is_null(), origin, "quantization_config");
  const auto activation = io::find_string(config, "hidden_act", origin).value_or("silu");
  refuse(activation != "silu" && activation != "swish", origin, "a hidden_act other than silu");
  refuse(io::find_double(config, "partial_rotary_factor", origin).value_or(1) != 1, origin, "a partial_rotary_factor other than 1");
  ModelSpec spec;
  spec.family = family;
  auto& attention = spec.block.attention;
  spec.vocab_size = io::require_int(config, "vocab_size", origin);
  spec.hidden_size = io::require_int(config, "hidden_size", origin);
  spec.num_layers = io::require_int(config, "num_hidden_layers", origin);
  attention.num_heads = io::require_int(config, "num_attention_heads", origin);
  attention.num_kv_heads = io::find_int(config, "num_key_value_heads", origin).value_or(attention.num_heads);
  attention.head_dim =
      io::find_int(config, "head_dim", origin).value_or(attention.num_heads > 0 ? spec.hidden_size / attention.num_heads : 0);
  spec.block.mlp.intermediate_size = io::require_int(config, "intermediate_size", origin);
  spec.max_positions = io::find_int(config, "max_position_embeddings", origin).value_or(2048);
  spec.block.norm.epsilon = io::find_double(config, "rms_norm_eps", origin).value_or(1e-6);
  spec.tie_word_embeddings = io::find_bool(config, "tie_word_embeddings", origin).value_or(false);
  attention.rope = rope_from_json(config, origin);
  return spec;
}

ModelSpec common_from_gguf(const io::GgufView& gguf, const std::string& prefix, const char* family) {
  const auto key = [&](const char* name) { return prefix + "." + name; };
  const auto& origin = gguf.origin();
  ModelSpec spec;
  spec.family = family;
  auto& attention = spec.block.attention;
  spec.hidden_size = gguf.require_int(key("embedding_length"));
  spec.num_layers = gguf.require_int(key("block_count"));
  attention.num_heads = gguf.require_int(key("attention.head_count"));
  attention.num_kv_heads = gguf.find_int(key("attention.head_count_kv")).value_or(attention.num_heads);
  attention.head_dim =
      gguf.find_int(key("attention.key_length")).value_or(attention.num_heads > 0 ? spec.hidden_size / attention.num_heads : 0);
  spec.block.mlp.intermediate_size = gguf.require_int(key("feed_forward_length"));
  spec.max_positions = gguf.require_int(key("context_length"));
  spec.block.norm.epsilon = gguf.require_float(key("attention.layer_norm_rms_epsilon"));
  attention.rope.theta = gguf.find_float(key("rope.freq_base")).value_or(10000.0);
  refuse(gguf.find_int(key("expert_count")).value_or(0) > 0, origin, "a mixture of experts");
  refuse(gguf.find_int(key("rope.dimension_count")).value_or(attention.head_dim) != attention.head_dim, origin,
         "rotary embedding of a part of a head (" + key("rope.dimension_count") + ")");
  refuse(gguf.find("rope_freqs.weight") != nullptr, origin, "rope scaling by the tensor 'rope_freqs.weight'");
  const auto* scaling = gguf.find_string(key("rope.scaling.type"));
  if (scaling != nullptr && *scaling == "linear") {
    attention.rope.type = RopeSpec::Type::kLinear;
    attention.rope.factor = gguf.require_float(key("rope.scaling.factor"));
  } else if (scaling != nullptr && *scaling != "none") {
    fail(ErrorKind::kUnsupported, "{}: rope scaling '{}' is not supported; expected none or linear", origin, *scaling);
  }
  spec.tie_word_embeddings = gguf.find("output.weight") == nullptr;
  const auto& embedding = gguf.at("token_embd.weight");
  spec.vocab_size = embedding.shape.size() == 2 ? embedding.shape[0] : 0;
  return spec;
}

json common_to_json(const ModelSpec& spec, const char* model_type, const char* architecture) {
  const auto& attention = spec.block.attention;
  json config = {{"architectures", {architecture}},
                 {"model_type", model_type},
                 {"vocab_size", spec.vocab_size},
                 {"hidden_size", spec.hidden_size},
                 {"num_hidden_layers", spec.num_layers},
                 {"num_attention_heads", attention.num_heads},
                 {"num_key_value_heads", attention.num_kv_heads},
                 {"head_dim", attention.head_dim},
                 {"intermediate_size", spec.block.mlp.intermediate_size},
                 {"max_position_embeddings", spec.max_positions},
                 {"rms_norm_eps", spec.block.norm.epsilon},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", spec.tie_word_embeddings},
                 {"rope_theta", attention.rope.theta}};
  if (attention.rope.type == RopeSpec::Type::kLinear) config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", attention.rope.factor}};
  if (attention.rope.type == RopeSpec::Type::kLlama3) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", attention.rope.factor},
                              {"low_freq_factor", attention.rope.low_freq_factor},
                              {"high_freq_factor", attention.rope.high_freq_factor},
                              {"original_max_position_embeddings", attention.rope.original_context}};
  }
  return config;
}

}  // namespace quiver::model
