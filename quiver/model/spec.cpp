#include "quiver/model/spec.h"

#include <cmath>
#include <numbers>

#include "quiver/base/error.h"

namespace quiver::model {

void check(const ModelSpec& spec, const std::string& origin) {
  const auto& a = spec.block.attention;
  const auto positive = [&](const char* what, std::int64_t value) {
    if (value < 1 || value > kMaxDimension) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected 1 to {}", origin, what, value, kMaxDimension);
    }
  };
  positive("vocabulary size", spec.vocab_size);
  positive("hidden size", spec.hidden_size);
  positive("number of layers", spec.num_layers);
  positive("number of attention heads", a.num_heads);
  positive("number of key-value heads", a.num_kv_heads);
  positive("head size", a.head_dim);
  positive("intermediate size", spec.block.mlp.intermediate_size);
  positive("context length", spec.max_positions);
  if (a.num_heads % a.num_kv_heads != 0) {
    fail(ErrorKind::kBadFormat, "{}: {} attention heads are no multiple of {} key-value heads", origin, a.num_heads, a.num_kv_heads);
  }
  if (a.head_dim % 2 != 0) fail(ErrorKind::kBadFormat, "{}: head size {} is odd; rotary embedding needs pairs", origin, a.head_dim);
  const auto positive_number = [&](const char* what, double value) {
    if (!(value > 0) || !std::isfinite(value)) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected a positive, finite number", origin, what, value);
    }
  };
  positive_number("rms_norm_eps", spec.block.norm.epsilon);
  positive_number("rope theta", a.rope.theta);
  positive_number("rope factor", a.rope.factor);
  if (a.rope.type != RopeSpec::Type::kLlama3) return;
  positive_number("rope low_freq_factor", a.rope.low_freq_factor);
  positive_number("rope high_freq_factor", a.rope.high_freq_factor);
  positive_number("rope original_max_position_embeddings", a.rope.original_context);
  if (a.rope.high_freq_factor <= a.rope.low_freq_factor) {
    fail(ErrorKind::kBadFormat, "{}: rope high_freq_factor {} must be above low_freq_factor {}", origin, a.rope.high_freq_factor,
         a.rope.low_freq_factor);
  }
}

std::vector<LinearSpec> block_linears(const ModelSpec& spec) {
  const auto& names = spec.names;
  const auto& attention = spec.block.attention;
  const auto& mlp = spec.block.mlp;
  const auto d = spec.hidden_size, q = attention.query_width(), kv = attention.key_width(), f = mlp.intermediate_size;
  return {{names.query, q, d, attention.has_qkv_bias},
          {names.key, kv, d, attention.has_qkv_bias},
          {names.value, kv, d, attention.has_qkv_bias},
          {names.output, d, q, attention.has_output_bias},
          {names.gate, f, d, mlp.has_bias},
          {names.up, f, d, mlp.has_bias},
          {names.down, d, f, mlp.has_bias}};
}

std::string block_path(const ModelSpec& spec, std::int64_t layer, const char* name) {
  return format("{}.{}.{}", spec.names.blocks, layer, name);
}

std::vector<double> rope_frequencies(const RopeSpec& rope, std::int64_t head_dim) {
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (rope.type == RopeSpec::Type::kLinear) {
      f /= rope.factor;
    } else if (rope.type == RopeSpec::Type::kLlama3) {
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
