#include "quiver/model/families/gguf.h"

#include <cmath>
#include <variant>

#include "quiver/base/error.h"
#include "quiver/model/families/common.h"

namespace quiver::model {
namespace {

/// The values of a tensor of rope factors; empty where there is none.
std::vector<double> divisors_of(const GgufConfig& config, const char* name) {
  const auto* tensor = config.gguf().find(name);
  if (tensor == nullptr) return {};
  if (tensor->type != io::GgufType::kF32 || tensor->shape.size() != 1) {
    fail(ErrorKind::kBadFormat, "{}: tensor '{}' is of type {} with {} dimensions; expected one of F32", config.origin(), name,
         io::gguf_type_name(tensor->type), tensor->shape.size());
  }
  std::vector<float> values(static_cast<std::size_t>(tensor->num_elements()));
  io::dequantize(*tensor, values);
  return {values.begin(), values.end()};
}

/// Factors of single frequencies stand in tensors: rope_freqs for any context, or two for short and long ones.
void read_divisors(const GgufConfig& config, RopeSpec& rope) {
  rope.divisors = divisors_of(config, "rope_freqs.weight");
  const bool is_long = config.has_tensor("rope_factors_long.weight"), is_short = config.has_tensor("rope_factors_short.weight");
  if (is_long != is_short) {
    fail(ErrorKind::kBadFormat, "{}: has one of the tensors 'rope_factors_long.weight' and 'rope_factors_short.weight' without the other",
         config.origin());
  }
  if (is_long) {
    refuse(!rope.divisors.empty(), config.origin(), "'rope_freqs.weight' beside 'rope_factors_long.weight'");
    rope.divisors = divisors_of(config, "rope_factors_short.weight");
    rope.long_divisors = divisors_of(config, "rope_factors_long.weight");
    rope.original_context = static_cast<double>(config.count("rope.scaling.original_context_length", config.count("context_length")));
    rope.attention_factor = config.number("rope.scaling.attn_factor", 1);
  }
  if (!rope.divisors.empty()) rope.type = RopeSpec::Type::kDivided;
}

void read_yarn(const GgufConfig& config, RopeSpec& rope) {
  rope.type = RopeSpec::Type::kYarn;
  rope.factor = config.number("rope.scaling.factor");
  rope.original_context = static_cast<double>(config.count("rope.scaling.original_context_length", config.count("context_length")));
  // The same as in a config.json (Peng et al. 2023, sec. 3.4), where the file does not say.
  const double usual = rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1;
  rope.attention_factor = config.number("rope.scaling.yarn_attn_factor", usual);
  rope.beta_fast = config.number("rope.scaling.yarn_beta_fast", 32);
  rope.beta_slow = config.number("rope.scaling.yarn_beta_slow", 1);
  refuse(config.number("rope.scaling.yarn_ext_factor", 1) != 1, config.origin(),
         config.key("rope.scaling.yarn_ext_factor") + " other than 1");
  refuse(config.number("rope.scaling.yarn_log_multiplier", 0) != 0, config.origin(),
         config.key("rope.scaling.yarn_log_multiplier") + " other than 0");
}

RopeSpec rope_from_gguf(const GgufConfig& config, std::int64_t head_dim) {
  const auto& origin = config.origin();
  const auto* const named = config.gguf().find_string(config.key("rope.scaling.type"));
  const std::string type = named == nullptr ? "linear" : *named;  // as llama.cpp takes it
  RopeSpec rope;
  rope.theta = config.number("rope.freq_base", 10000);
  rope.rotary_dim = config.count("rope.dimension_count", head_dim);
  rope.factor = config.number("rope.scaling.factor", config.number("rope.scale_linear", 1));
  if (rope.factor == 0) rope.factor = 1;  // llama.cpp's word for none
  read_divisors(config, rope);
  if (type != "none" && type != "linear" && type != "yarn" && type != "longrope") {
    fail(ErrorKind::kUnsupported, "{}: {} is '{}', which is not supported; expected none, linear, yarn or longrope", origin,
         config.key("rope.scaling.type"), type);
  }
  if (rope.type == RopeSpec::Type::kDivided) {
    refuse(type == "yarn" || (type == "linear" && rope.factor != 1), origin, "rope scaling '" + type + "' beside a tensor of rope factors");
    rope.factor = 1;
  } else if (type == "longrope") {
    fail(ErrorKind::kBadFormat, "{}: {} is 'longrope', but there is no tensor 'rope_factors_long.weight'", origin,
         config.key("rope.scaling.type"));
  } else if (type == "yarn") {
    read_yarn(config, rope);
  } else if (type == "linear" && rope.factor != 1) {
    rope.type = RopeSpec::Type::kLinear;
  } else {
    rope.factor = 1;
  }
  return rope;
}

/// The layers with a window: "attention.sliding_window_pattern" lists them, or is the period.
std::vector<bool> sliding_layers(const GgufConfig& config, std::int64_t num_layers, std::int64_t period) {
  const auto key = config.key("attention.sliding_window_pattern");
  const auto found = config.gguf().metadata().find(key);
  std::vector<bool> is_sliding;
  if (found != config.gguf().metadata().end()) {
    if (const auto* flags = std::get_if<std::vector<bool>>(&found->second)) {
      is_sliding = *flags;
    } else if (const auto* counts = std::get_if<std::vector<std::int64_t>>(&found->second)) {
      for (const auto value : *counts) is_sliding.push_back(value != 0);
    } else {
      period = config.count("attention.sliding_window_pattern");
    }
    if (!std::holds_alternative<std::int64_t>(found->second) && std::ssize(is_sliding) != num_layers) {
      fail(ErrorKind::kBadFormat, "{}: {} has {} entries for {} layers; expected one each", config.origin(), key, is_sliding.size(),
           num_layers);
    }
  }
  if (period < 0) fail(ErrorKind::kBadFormat, "{}: {} is {}; expected 0 or more", config.origin(), key, period);
  for (auto i = std::ssize(is_sliding); i < num_layers; ++i) is_sliding.push_back(period == 0 || (i + 1) % period != 0);
  return is_sliding;
}

}  // namespace

bool GgufConfig::require_flag(const char* name) const {
  const auto value = gguf_.find_bool(key(name));
  if (!value) fail(ErrorKind::kBadFormat, "{}: the metadata has no key '{}'", origin(), key(name));
  return *value;
}

void GgufConfig::expect_count(const char* name, std::int64_t expected) const {
  const auto value = count(name, expected);
  if (value != expected) {
    fail(ErrorKind::kUnsupported, "{}: {} is {}, which is not supported; expected {}", origin(), key(name), value, expected);
  }
}

void GgufConfig::expect_flag(const char* name, bool expected) const {
  if (flag(name, expected) != expected) {
    fail(ErrorKind::kUnsupported, "{}: {} is {}, which is not supported; expected {}", origin(), key(name), !expected, expected);
  }
}

void GgufConfig::refuse_in_block(const char* name) const {
  const auto first = format("blk.0.{}.weight", name);
  refuse(has_tensor(first.c_str()), origin(),
         "the tensor '" + first + "' in a model of architecture '" + gguf_.require_string("general.architecture") + "'");
}

ModelSpec common_from_gguf(const GgufConfig& config, const char* family, NormSpec::Kind kind, const std::optional<GgufWindows>& windows) {
  const auto& origin = config.origin();
  ModelSpec spec;
  spec.family = family;
  auto& attention = spec.block.attention;
  spec.hidden_size = config.count("embedding_length");
  spec.layers = equal_layers(config.count("block_count"), origin);
  attention.num_heads = config.count("attention.head_count");
  attention.num_kv_heads = config.count("attention.head_count_kv", attention.num_heads);
  attention.head_dim = config.count("attention.key_length", attention.num_heads > 0 ? spec.hidden_size / attention.num_heads : 0);
  config.expect_count("attention.value_length", attention.head_dim);
  config.expect_count("expert_count", 0);
  config.expect_flag("attention.causal", true);
  spec.block.mlp.intermediate_size = config.count("feed_forward_length");
  spec.max_positions = config.count("context_length");
  spec.block.norm.kind = kind;
  spec.block.norm.epsilon =
      config.number(kind == NormSpec::Kind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon");
  attention.has_qkv_bias = config.has_tensor("blk.0.attn_q.bias") || config.has_tensor("blk.0.attn_qkv.bias");
  attention.has_output_bias = config.has_tensor("blk.0.attn_output.bias");
  spec.block.mlp.has_bias = config.has_tensor("blk.0.ffn_down.bias");
  spec.edges.has_head_bias = config.has_tensor("output.bias");
  spec.tie_word_embeddings = !config.has_tensor("output.weight");
  const auto& embedding = config.gguf().at("token_embd.weight");
  spec.vocab_size = embedding.shape.size() == 2 ? embedding.shape[0] : 0;
  if (windows) {
    set_windows(spec, config.count("attention.sliding_window", windows->window),
                sliding_layers(config, spec.num_layers(), windows->period));
  } else {
    config.expect_count("attention.sliding_window", 0);
  }
  spec.ropes = {rope_from_gguf(config, attention.head_dim)};
  return spec;
}

void read_attention_scale(const GgufConfig& config, ModelSpec& spec) {
  if (const double scale = config.number("attention.scale", 0); scale != 0) spec.block.attention.scale = scale;
}

}  // namespace quiver::model
