#include "quiver/model/spec.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "quiver/base/error.h"

namespace quiver::model {
namespace {

using nlohmann::json;

/// Refuses values of a description that its passes could not compute with.
class Checker {
 public:
  explicit Checker(const std::string& origin) : origin_(origin) {}
  void size(const char* what, std::int64_t value) const {
    if (value < 1 || value > kMaxDimension) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected 1 to {}", origin_, what, value, kMaxDimension);
    }
  }
  void positive(const char* what, double value) const {
    if (!(value > 0) || !std::isfinite(value)) {
      fail(ErrorKind::kBadFormat, "{}: {} is {}; expected a positive, finite number", origin_, what, value);
    }
  }
  void positive_or_none(const char* what, double value) const {
    if (value != 0) positive(what, value);
  }
  void rope(const RopeSpec& rope, std::int64_t head_dim) const {
    if (rope.rotary_dim < 2 || rope.rotary_dim > head_dim || rope.rotary_dim % 2 != 0) {
      fail(ErrorKind::kBadFormat, "{}: {} of the {} numbers of a head are rotated; expected an even number of 2 to {}", origin_,
           rope.rotary_dim, head_dim, head_dim);
    }
    positive("rope theta", rope.theta);
    positive("rope factor", rope.factor);
    positive("rope attention_factor", rope.attention_factor);
    positive_or_none("rope original_max_position_embeddings", rope.original_context);
    if (!rope.long_divisors.empty() && rope.original_context < 1) {
      fail(ErrorKind::kBadFormat, "{}: rope original_max_position_embeddings is {}; expected 1 or more", origin_, rope.original_context);
    }
    const auto pairs = static_cast<std::size_t>(rope.rotary_dim / 2);
    for (const auto* list : {&rope.divisors, &rope.long_divisors}) {
      if (list->empty() && (list == &rope.long_divisors || rope.type != RopeSpec::Type::kDivided)) continue;
      if (list->size() != pairs) {
        fail(ErrorKind::kBadFormat, "{}: {} rope factors for {} frequencies; expected one each", origin_, list->size(), pairs);
      }
      for (const double divisor : *list) positive("a rope factor", divisor);
    }
    if (rope.type == RopeSpec::Type::kLlama3)
      ends(rope, "low_freq_factor", rope.low_freq_factor, "high_freq_factor", rope.high_freq_factor);
    if (rope.type == RopeSpec::Type::kYarn) ends(rope, "beta_slow", rope.beta_slow, "beta_fast", rope.beta_fast);
  }

 private:
  /// Of a blend of frequencies.
  void ends(const RopeSpec& rope, const char* low_name, double low, const char* high_name, double high) const {
    positive(format("rope {}", low_name).c_str(), low);
    positive(format("rope {}", high_name).c_str(), high);
    positive("rope original_max_position_embeddings", rope.original_context);
    if (high <= low) fail(ErrorKind::kBadFormat, "{}: rope {} {} must be above {} {}", origin_, high_name, high, low_name, low);
  }
  const std::string& origin_;
};

/// Yarn's blend (Peng et al. 2023, sec. 3.2): the index of the frequency that turns `turns` times in the original context.
double yarn_index(const RopeSpec& rope, double turns) {
  return static_cast<double>(rope.rotary_dim) * std::log(rope.original_context / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

json rope_essence(const RopeSpec& rope) {
  const auto& [type, theta, rotary_dim, attention_factor, factor, original_context, low, high, fast, slow, truncate, divisors,
               long_divisors] = rope;
  return json::array(
      {type, theta, rotary_dim, attention_factor, factor, original_context, low, high, fast, slow, truncate, divisors, long_divisors});
}

}  // namespace

double AttentionSpec::score_scale() const { return scale.value_or(1 / std::sqrt(static_cast<double>(head_dim))); }

void check(const ModelSpec& spec, const std::string& origin) {
  const auto& a = spec.block.attention;
  const Checker expect(origin);
  expect.size("vocabulary size", spec.vocab_size);
  expect.size("hidden size", spec.hidden_size);
  expect.size("number of attention heads", a.num_heads);
  expect.size("number of key-value heads", a.num_kv_heads);
  expect.size("head size", a.head_dim);
  expect.size("intermediate size", spec.block.mlp.intermediate_size);
  expect.size("context length", spec.max_positions);
  if (a.num_heads % a.num_kv_heads != 0) {
    fail(ErrorKind::kBadFormat, "{}: {} attention heads are no multiple of {} key-value heads", origin, a.num_heads, a.num_kv_heads);
  }
  if (a.rows == QkvRows::kByHead && a.num_heads != a.num_kv_heads) {
    fail(ErrorKind::kBadFormat, "{}: {} attention heads and {} key-value heads do not alternate; expected as many", origin, a.num_heads,
         a.num_kv_heads);
  }
  expect.positive("the epsilon of norms", spec.block.norm.epsilon);
  expect.positive("the scale of attention scores", a.score_scale());
  expect.positive_or_none("the cap of attention scores", a.cap);
  expect.positive_or_none("the cap of logits", spec.edges.logit_cap);
  expect.positive("the divisor of logits", spec.edges.logit_divisor);
  expect.positive("the scale of embeddings", spec.edges.embedding_scale);
  expect.positive("the scale of the residual branches", spec.block.residual_scale);
  for (const auto& rope : spec.ropes) expect.rope(rope, a.head_dim);
  for (const auto& layer : spec.layers) {
    if (layer.window < 0) fail(ErrorKind::kBadFormat, "{}: an attention window is {}; expected 0 or more", origin, layer.window);
  }
}

void set_context(ModelSpec& spec, std::optional<std::int64_t> wanted, const std::string& origin) {
  if (wanted && (*wanted < 1 || *wanted > spec.max_positions)) {
    fail(ErrorKind::kUsage, "{}: `context` {} does not fit the model; expected 1 to {}", origin, *wanted, spec.max_positions);
  }
  auto usual = spec.max_positions;
  for (const auto& rope : spec.ropes) {
    if (!rope.long_divisors.empty() && rope.original_context < static_cast<double>(usual)) {
      usual = static_cast<std::int64_t>(rope.original_context);
    }
  }
  spec.max_positions = wanted.value_or(usual);
}

json essence(const ModelSpec& spec) {
  // What the tensors are called does not matter, nor what the model is.
  const auto& [name, family, vocab_size, hidden_size, max_positions, is_tied, edges, block, ropes, layers, names] = spec;
  const auto& [embedding_scale, has_positions, has_head_bias, logit_divisor, logit_cap] = edges;
  const auto& [norm, places, topology, attention, mlp, residual_scale] = block;
  const auto& [kind, epsilon, offset] = norm;
  const auto& [heads, kv_heads, head_dim, rows, qk_norm, has_qkv_bias, has_output_bias, scale, cap] = attention;
  const auto& [intermediate_size, activation, is_gated, is_fused, has_mlp_bias] = mlp;
  json of_layers = json::array(), of_ropes = json::array();
  for (const auto& [window, rope] : layers) of_layers.push_back({window, rope});
  for (const auto& rope : ropes) of_ropes.push_back(rope_essence(rope));
  return json::array({json::array({family, vocab_size, hidden_size, max_positions, is_tied}),
                      json::array({embedding_scale, has_positions, has_head_bias, logit_divisor, logit_cap}),
                      json::array({places, topology, residual_scale, kind, epsilon, offset}),
                      json::array({heads, kv_heads, head_dim, rows, qk_norm, has_qkv_bias, has_output_bias, attention.score_scale(), cap}),
                      json::array({intermediate_size, activation, is_gated, is_fused, has_mlp_bias}), of_ropes, of_layers});
}

std::vector<LinearSpec> block_linears(const ModelSpec& spec) {
  const auto& names = spec.names;
  const auto& attention = spec.block.attention;
  const auto& mlp = spec.block.mlp;
  const auto d = spec.hidden_size, q = attention.query_width(), kv = attention.key_width(), f = mlp.intermediate_size;
  std::vector<LinearSpec> linears;
  if (attention.rows == QkvRows::kSeparate) {
    linears.push_back({names.query, q, d, attention.has_qkv_bias});
    linears.push_back({names.key, kv, d, attention.has_qkv_bias});
    linears.push_back({names.value, kv, d, attention.has_qkv_bias});
  } else {
    linears.push_back({names.qkv, q + 2 * kv, d, attention.has_qkv_bias});
  }
  linears.push_back({names.output, d, q, attention.has_output_bias});
  if (mlp.is_gated && mlp.is_fused) {
    linears.push_back({names.gate_up, 2 * f, d, mlp.has_bias});
  } else {
    if (mlp.is_gated) linears.push_back({names.gate, f, d, mlp.has_bias});
    linears.push_back({names.up, f, d, mlp.has_bias});
  }
  linears.push_back({names.down, d, f, mlp.has_bias});
  return linears;
}

std::vector<std::string> attention_targets(const ModelSpec& spec) {
  const auto last_name = [](std::string_view name) { return name.substr(name.rfind('.') + 1); };
  const auto linears = block_linears(spec);
  std::vector<std::string> targets;
  for (const auto& linear : linears) {
    const auto last = last_name(linear.name);
    const bool is_unique = std::ranges::count_if(linears, [&](const auto& other) { return last_name(other.name) == last; }) == 1;
    targets.emplace_back(is_unique ? last : linear.name);
    if (linear.name == spec.names.output) return targets;
  }
  return targets;
}

std::vector<BlockNorm> block_norms(const ModelSpec& spec) {
  const auto& names = spec.names;
  const auto& block = spec.block;
  const auto& attention = block.attention;
  std::vector<BlockNorm> norms;
  if (block.has_pre_norms()) {
    norms.push_back({names.attention_norm, spec.hidden_size});
    if (block.topology != Topology::kParallelShared) norms.push_back({names.mlp_norm, spec.hidden_size});
  }
  if (block.has_post_norms()) {
    norms.push_back({names.attention_post_norm, spec.hidden_size});
    norms.push_back({names.mlp_post_norm, spec.hidden_size});
  }
  if (attention.qk_norm != QkNorm::kNone) {
    const bool is_of_head = attention.qk_norm == QkNorm::kHead;
    norms.push_back({names.query_norm, is_of_head ? attention.head_dim : attention.query_width()});
    norms.push_back({names.key_norm, is_of_head ? attention.head_dim : attention.key_width()});
  }
  return norms;
}

std::string block_path(const ModelSpec& spec, std::int64_t layer, const char* name) {
  return format("{}.{}.{}", spec.names.blocks, layer, name);
}

std::vector<double> rope_frequencies(const RopeSpec& rope, std::int64_t max_positions) {
  using Type = RopeSpec::Type;
  const auto n = rope.rotary_dim;
  const bool is_long = !rope.long_divisors.empty() && static_cast<double>(max_positions) > rope.original_context;
  const auto& divisors = is_long ? rope.long_divisors : rope.divisors;
  double first = 0, last = 0;  // where yarn's blend begins and ends
  if (rope.type == Type::kYarn) {
    first = yarn_index(rope, rope.beta_fast);
    last = yarn_index(rope, rope.beta_slow);
    if (rope.truncate) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, static_cast<double>(n - 1));
    if (first == last) last += 0.001;
  }
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < n / 2; ++i) {
    const double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(n));
    double stretched = 0;  // the share of f that is divided by the factor
    if (rope.type == Type::kLinear) stretched = 1;
    if (rope.type == Type::kLlama3) {
      const double turns = rope.original_context * f / (2 * std::numbers::pi);
      stretched = 1 - std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    }
    if (rope.type == Type::kYarn) stretched = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    const double divisor = rope.type == Type::kDivided ? divisors[static_cast<std::size_t>(i)] : 1;
    frequencies.push_back((f * (1 - stretched) + f / rope.factor * stretched) / divisor);
  }
  return frequencies;
}

}  // namespace quiver::model
