#include "quiver/model/config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// Every size is used in products below; bounds keep those from overflowing and absurd files from allocating.
void check(const LlamaConfig& c, const std::string& origin) {
  const auto positive = [&](const char* what, std::int64_t value) {
    if (value < 1 || value > kMaxDimension) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected 1 to {}", origin, what, value, kMaxDimension);
    }
  };
  positive("vocabulary size", c.vocab_size);
  positive("hidden size", c.hidden_size);
  positive("number of layers", c.num_layers);
  positive("number of attention heads", c.num_heads);
  positive("number of key-value heads", c.num_kv_heads);
  positive("head size", c.head_dim);
  positive("intermediate size", c.intermediate_size);
  positive("context length", c.max_positions);
  if (c.num_heads % c.num_kv_heads != 0) {
    fail(ErrorKind::kBadFormat, "{}: {} attention heads are no multiple of {} key-value heads", origin, c.num_heads, c.num_kv_heads);
  }
  if (c.head_dim % 2 != 0) fail(ErrorKind::kBadFormat, "{}: head size {} is odd; rotary embedding needs pairs", origin, c.head_dim);
  const auto positive_number = [&](const char* what, double value) {
    if (!(value > 0) || !std::isfinite(value)) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected a positive, finite number", origin, what, value);
    }
  };
  positive_number("rms_norm_eps", c.rms_norm_eps);
  positive_number("rope theta", c.rope.theta);
  positive_number("rope factor", c.rope.factor);
  if (c.rope.type != RopeOptions::Type::kLlama3) return;
  positive_number("rope low_freq_factor", c.rope.low_freq_factor);
  positive_number("rope high_freq_factor", c.rope.high_freq_factor);
  positive_number("rope original_max_position_embeddings", c.rope.original_context);
  if (c.rope.high_freq_factor <= c.rope.low_freq_factor) {
    fail(ErrorKind::kBadFormat, "{}: rope high_freq_factor {} must be above low_freq_factor {}", origin, c.rope.high_freq_factor,
         c.rope.low_freq_factor);
  }
}

void refuse(bool condition, const std::string& origin, const char* what) {
  if (condition) {
    fail(ErrorKind::kUnsupported, "{}: {} is not supported; expected a plain Llama (RMSNorm, SwiGLU, rotary, no biases)", origin, what);
  }
}

RopeOptions rope_from_json(const json& config, const std::string& origin) {
  RopeOptions rope;
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
    rope.type = RopeOptions::Type::kLinear;
    rope.factor = io::require_double(given, "factor", origin);
  } else if (name == "llama3") {
    rope.type = RopeOptions::Type::kLlama3;
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

LlamaConfig config_from_json(const json& config, const std::string& origin) {
  const auto type = io::require_string(config, "model_type", origin);
  if (type != "llama" && type != "mistral") {
    fail(ErrorKind::kUnsupported, "{}: model_type '{}' is not supported; expected llama or mistral", origin, type);
  }
  const auto flag = [&](const char* key) { return io::find_bool(config, key, origin).value_or(false); };
  refuse(flag("attention_bias"), origin, "attention_bias");
  refuse(flag("mlp_bias"), origin, "mlp_bias");
  refuse(config.contains("sliding_window") && !config.at("sliding_window").is_null(), origin, "sliding_window");
  refuse(config.contains("quantization_config") && !config.at("quantization_config").is_null(), origin, "quantization_config");
  const auto activation = io::find_string(config, "hidden_act", origin).value_or("silu");
  refuse(activation != "silu" && activation != "swish", origin, "a hidden_act other than silu");
  refuse(io::find_double(config, "partial_rotary_factor", origin).value_or(1) != 1, origin, "a partial_rotary_factor other than 1");
  LlamaConfig c;
  c.vocab_size = io::require_int(config, "vocab_size", origin);
  c.hidden_size = io::require_int(config, "hidden_size", origin);
  c.num_layers = io::require_int(config, "num_hidden_layers", origin);
  c.num_heads = io::require_int(config, "num_attention_heads", origin);
  c.num_kv_heads = io::find_int(config, "num_key_value_heads", origin).value_or(c.num_heads);
  c.head_dim = io::find_int(config, "head_dim", origin).value_or(c.num_heads > 0 ? c.hidden_size / c.num_heads : 0);
  c.intermediate_size = io::require_int(config, "intermediate_size", origin);
  c.max_positions = io::find_int(config, "max_position_embeddings", origin).value_or(2048);
  c.rms_norm_eps = io::find_double(config, "rms_norm_eps", origin).value_or(1e-6);
  c.tie_word_embeddings = flag("tie_word_embeddings");
  c.rope = rope_from_json(config, origin);
  check(c, origin);
  return c;
}

LlamaConfig config_from_gguf(const io::GgufView& gguf) {
  const auto& origin = gguf.origin();
  const auto& architecture = gguf.require_string("general.architecture");
  if (architecture != "llama") {
    fail(ErrorKind::kUnsupported, "{}: architecture '{}' is not supported; expected llama", origin, architecture);
  }
  if (const auto shards = gguf.find_int("split.count").value_or(1); shards > 1) {
    fail(ErrorKind::kUnsupported, "{}: is one of {} parts of a model; join them to one file first (llama.cpp's gguf-split does)", origin,
         shards);
  }
  LlamaConfig c;
  const auto* name = gguf.find_string("general.name");
  if (name != nullptr) c.name = *name;
  c.hidden_size = gguf.require_int("llama.embedding_length");
  c.num_layers = gguf.require_int("llama.block_count");
  c.num_heads = gguf.require_int("llama.attention.head_count");
  c.num_kv_heads = gguf.find_int("llama.attention.head_count_kv").value_or(c.num_heads);
  c.head_dim = gguf.find_int("llama.attention.key_length").value_or(c.num_heads > 0 ? c.hidden_size / c.num_heads : 0);
  c.intermediate_size = gguf.require_int("llama.feed_forward_length");
  c.max_positions = gguf.require_int("llama.context_length");
  c.rms_norm_eps = gguf.require_float("llama.attention.layer_norm_rms_epsilon");
  c.rope.theta = gguf.find_float("llama.rope.freq_base").value_or(10000.0);
  refuse(gguf.find_int("llama.expert_count").value_or(0) > 0, origin, "a mixture of experts");
  refuse(gguf.find_int("llama.rope.dimension_count").value_or(c.head_dim) != c.head_dim, origin,
         "rotary embedding of a part of a head (llama.rope.dimension_count)");
  refuse(gguf.find("rope_freqs.weight") != nullptr, origin, "rope scaling by the tensor 'rope_freqs.weight'");
  const auto* scaling = gguf.find_string("llama.rope.scaling.type");
  if (scaling != nullptr && *scaling == "linear") {
    c.rope.type = RopeOptions::Type::kLinear;
    c.rope.factor = gguf.require_float("llama.rope.scaling.factor");
  } else if (scaling != nullptr && *scaling != "none") {
    fail(ErrorKind::kUnsupported, "{}: rope scaling '{}' is not supported; expected none or linear", origin, *scaling);
  }
  c.tie_word_embeddings = gguf.find("output.weight") == nullptr;
  const auto& embedding = gguf.at("token_embd.weight");
  c.vocab_size = embedding.shape.size() == 2 ? embedding.shape[0] : 0;
  check(c, origin);
  return c;
}

json config_to_json(const LlamaConfig& c) {
  json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"vocab_size", c.vocab_size},
                 {"hidden_size", c.hidden_size},
                 {"num_hidden_layers", c.num_layers},
                 {"num_attention_heads", c.num_heads},
                 {"num_key_value_heads", c.num_kv_heads},
                 {"head_dim", c.head_dim},
                 {"intermediate_size", c.intermediate_size},
                 {"max_position_embeddings", c.max_positions},
                 {"rms_norm_eps", c.rms_norm_eps},
                 {"hidden_act", "silu"},
                 {"attention_bias", false},
                 {"mlp_bias", false},
                 {"tie_word_embeddings", c.tie_word_embeddings},
                 {"rope_theta", c.rope.theta}};
  if (c.rope.type == RopeOptions::Type::kLinear) config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", c.rope.factor}};
  if (c.rope.type == RopeOptions::Type::kLlama3) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", c.rope.factor},
                              {"low_freq_factor", c.rope.low_freq_factor},
                              {"high_freq_factor", c.rope.high_freq_factor},
                              {"original_max_position_embeddings", c.rope.original_context}};
  }
  return config;
}

std::vector<double> rope_frequencies(const RopeOptions& rope, std::int64_t head_dim) {
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (rope.type == RopeOptions::Type::kLinear) {
      f /= rope.factor;
    } else if (rope.type == RopeOptions::Type::kLlama3) {
      // Long waves are divided by the factor, short ones kept, those between blended (Llama 3.1's rule).
      const double turns = rope.original_context * f / (2 * std::numbers::pi);
      if (turns < rope.low_freq_factor) {
        f /= rope.factor;
      } else if (turns <= rope.high_freq_factor) {
        const double keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        f = (1 - keep) * f / rope.factor + keep * f;
      }
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

}  // namespace quiver::model
