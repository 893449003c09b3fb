#include "quiver/testing/reference_decoder.h"

#include <torch/utils.h>

#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace quiver::testing {
namespace {

using torch::Tensor;

Tensor wide(const Tensor& t) { return t.defined() ? t.to(torch::kCPU, torch::kDouble) : t; }

/// The mean square is of what is left after the mean is taken away, in a LayerNorm.
Tensor norm_of(Tensor x, const model::NormSpec& norm, const Tensor& weight, const Tensor& bias) {
  if (norm.kind == model::NormSpec::Kind::kLayer) x = x - x.mean(-1, /*keepdim=*/true);
  const auto y = x / (x.square().mean(-1, /*keepdim=*/true) + norm.epsilon).sqrt() * (weight + norm.offset);
  return bias.defined() ? y + bias : y;
}

/// x [T, H, D]: the halves of the first numbers of every head as the parts of a complex number, turned by the row's angles.
Tensor rotate(const Tensor& x, const Tensor& angles, double factor) {
  const auto half = angles.size(1);
  const auto a = x.narrow(2, 0, half), b = x.narrow(2, half, half), rest = x.narrow(2, 2 * half, x.size(2) - 2 * half);
  const auto c = angles.cos().unsqueeze(1) * factor, s = angles.sin().unsqueeze(1) * factor;
  return torch::cat({a * c - b * s, b * c + a * s, rest}, 2);
}

Tensor act(backend::Activation activation, const Tensor& x) {
  using backend::Activation;
  switch (activation) {
    case Activation::kSilu: return x * x.sigmoid();
    case Activation::kGelu: return x * (1 + (x / std::sqrt(2.0)).erf()) / 2;
    case Activation::kGeluTanh: return x * (1 + (std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)).tanh()) / 2;
    case Activation::kRelu: return x.clamp_min(0);
  }
  return {};
}

/// Whether row i sees row j: the rows of its own segment up to itself, and all rows of the segment's ancestors.
Tensor visible(const forest::TokenForest& forest) {
  auto mask = torch::zeros({forest.num_rows(), forest.num_rows()}, torch::kBool);
  const auto segments = forest.segments();
  for (std::size_t s = 0; s < segments.size(); ++s) {
    for (std::int64_t i = 0; i < segments[s].length; ++i) {
      auto row = mask[segments[s].first_row + i];
      row.narrow(0, segments[s].first_row, i + 1).fill_(true);
      for (const auto a : forest.ancestors(static_cast<std::int64_t>(s))) {
        const auto& ancestor = segments[static_cast<std::size_t>(a)];
        row.narrow(0, ancestor.first_row, ancestor.length).fill_(true);
      }
    }
  }
  return mask;
}

/// The rows that are less than `window` positions apart; 0: all.
Tensor near_rows(const forest::TokenForest& forest, std::int64_t window) {
  const auto positions = torch::tensor(std::vector<std::int64_t>(forest.positions().begin(), forest.positions().end()));
  return window == 0 ? torch::ones({1, 1}, torch::kBool) : positions.unsqueeze(1) - positions.unsqueeze(0) < window;
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, const model::AttentionSpec& attention) {
  std::vector<Tensor> heads;
  for (std::int64_t h = 0; h < q.size(1); ++h) {
    const auto key_head = h / (q.size(1) / k.size(1));
    auto scores = q.select(1, h).matmul(k.select(1, key_head).t()) * attention.score_scale();
    if (attention.cap > 0) scores = (scores / attention.cap).tanh() * attention.cap;
    heads.push_back(
        scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity()).softmax(1).matmul(v.select(1, key_head)));
  }
  return torch::cat(heads, 1);  // [T, H D]
}

}  // namespace

Tensor plain_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const auto y = x.matmul(weight.t());
  return bias.defined() ? y + bias : y;
}

LinearDefinition lora_definition(const adapters::LoraPair& pair, const Tensor& mask) {
  return [pair, mask](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const auto a = wide(pair.lora_a()), b = wide(pair.lora_b()), magnitude = wide(pair.magnitude());
    const auto read = mask.defined() ? x * wide(mask) : x;
    if (!magnitude.defined())
      return plain_linear(x, weight, bias) + pair.scaling() * plain_linear(read.matmul(a.t()), b, wide(pair.bias()));
    const auto direction = weight + pair.scaling() * b.matmul(a);
    return plain_linear(x, direction * (magnitude / direction.detach().norm(2, 1)).unsqueeze(1), bias);
  };
}

LinearDefinition gated_definition(const adapters::LoraPair& pair, const Tensor& gate) {
  return [pair, gate](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const auto open = x.matmul(wide(gate)).sigmoid().unsqueeze(1);
    return plain_linear(x, weight, bias) + open * pair.scaling() * x.matmul(wide(pair.lora_a()).t()).matmul(wide(pair.lora_b()).t());
  };
}

LinearDefinitions adapter_definitions(const adapters::LoraAdapter& adapter) {
  LinearDefinitions definitions;
  for (const auto& [path, pair] : adapter.pairs) definitions.emplace(path, lora_definition(pair));
  return definitions;
}

namespace {

/// One model over one forest, a block at a time.
class ReferencePass {
 public:
  ReferencePass(const model::Model& model, const forest::TokenForest& forest, const LinearDefinitions& definitions)
      : spec_(model.spec()), forest_(forest), definitions_(definitions), weights_(model.weights()), visible_(visible(forest)) {
    const std::vector<double> positions(forest.positions().begin(), forest.positions().end());
    const auto at = torch::tensor(positions, torch::kDouble).unsqueeze(1);
    for (const auto& rope : spec_.ropes) {
      angles_.push_back(at * torch::tensor(model::rope_frequencies(rope, spec_.max_positions), torch::kDouble));
    }
  }

  Tensor hidden() const {
    const std::vector<std::int64_t> tokens(forest_.tokens().begin(), forest_.tokens().end());
    const std::vector<std::int64_t> positions(forest_.positions().begin(), forest_.positions().end());
    auto x = weight(spec_.names.embedding).index_select(0, torch::tensor(tokens, torch::kLong)) * spec_.edges.embedding_scale;
    if (spec_.edges.has_positions) x = x + weight(spec_.names.positions).index_select(0, torch::tensor(positions, torch::kLong));
    for (std::int64_t layer = 0; layer < spec_.num_layers(); ++layer) x = block(x, layer);
    return norm(x, spec_.names.final_norm);
  }

 private:
  Tensor find(const std::string& name) const {
    const auto found = weights_.find(spec_.names.prefix + name);
    return found == weights_.end() ? Tensor() : wide(found->second);
  }
  Tensor weight(const std::string& path) const { return find(path + ".weight"); }
  Tensor norm(const Tensor& x, const std::string& path) const { return norm_of(x, spec_.block.norm, weight(path), find(path + ".bias")); }
  Tensor linear(const Tensor& x, std::int64_t layer, const char* name) const {
    const auto path = model::block_path(spec_, layer, name);
    const auto found = definitions_.find(path);
    return (found == definitions_.end() ? LinearDefinition(plain_linear) : found->second)(x, weight(path), find(path + ".bias"));
  }

  /// Queries, keys and values by head, before norms and rotation.
  std::array<Tensor, 3> project(const Tensor& x, std::int64_t layer) const {
    const auto& [heads, kv_heads, head_dim, rows, qk_norm, qkv_bias, output_bias, scale, cap] = spec_.block.attention;
    const auto by_head = [&](const Tensor& t) { return t.reshape({x.size(0), -1, spec_.block.attention.head_dim}); };
    if (rows == model::QkvRows::kSeparate) {
      return {by_head(linear(x, layer, spec_.names.query)), by_head(linear(x, layer, spec_.names.key)),
              by_head(linear(x, layer, spec_.names.value))};
    }
    const auto all = linear(x, layer, spec_.names.qkv);
    if (rows == model::QkvRows::kByHead) {
      const auto parts = all.view({x.size(0), heads, 3, head_dim}).unbind(2);
      return {parts[0], parts[1], parts[2]};
    }
    const auto parts = all.split_with_sizes({heads * head_dim, kv_heads * head_dim, kv_heads * head_dim}, 1);
    return {by_head(parts[0]), by_head(parts[1]), by_head(parts[2])};
  }

  Tensor prepared(const Tensor& x, std::int64_t layer, const char* norm_name) const {
    const auto& attention = spec_.block.attention;
    const auto path = model::block_path(spec_, layer, norm_name);
    auto y = x;
    if (attention.qk_norm == model::QkNorm::kHead) y = norm(x, path);
    if (attention.qk_norm == model::QkNorm::kWidth) y = norm(x.flatten(1), path).view_as(x);
    const auto rope = spec_.layers[static_cast<std::size_t>(layer)].rope;
    if (rope == model::kNoRope) return y;
    return rotate(y, angles_[static_cast<std::size_t>(rope)], spec_.ropes[static_cast<std::size_t>(rope)].attention_factor);
  }

  Tensor mlp(const Tensor& x, std::int64_t layer) const {
    const auto& [size, activation, is_gated, is_fused, has_bias] = spec_.block.mlp;
    const auto& names = spec_.names;
    if (!is_gated) return linear(act(activation, linear(x, layer, names.up)), layer, names.down);
    if (!is_fused) return linear(act(activation, linear(x, layer, names.gate)) * linear(x, layer, names.up), layer, names.down);
    const auto halves = linear(x, layer, names.gate_up).chunk(2, 1);
    return linear(act(activation, halves[0]) * halves[1], layer, names.down);
  }

  Tensor block(const Tensor& x, std::int64_t layer) const {
    using model::Topology;
    const auto& block = spec_.block;
    const auto& names = spec_.names;
    const auto of_layer = [&](const char* name) { return model::block_path(spec_, layer, name); };
    const auto normed = block.has_pre_norms() ? norm(x, of_layer(names.attention_norm)) : x;
    const auto [q, k, v] = project(normed, layer);
    const auto mask = visible_.logical_and(near_rows(forest_, spec_.layers[static_cast<std::size_t>(layer)].window));
    auto attended = linear(attend(prepared(q, layer, names.query_norm), prepared(k, layer, names.key_norm), v, mask, block.attention),
                           layer, names.output);
    if (block.has_post_norms()) attended = norm(attended, of_layer(names.attention_post_norm));
    const auto mid = x + block.residual_scale * attended;
    const auto source = block.topology == Topology::kSequential ? mid : x;
    const auto input = block.topology == Topology::kParallelShared ? normed
                       : block.has_pre_norms()                     ? norm(source, of_layer(names.mlp_norm))
                                                                   : source;
    auto result = mlp(input, layer);
    if (block.has_post_norms()) result = norm(result, of_layer(names.mlp_post_norm));
    return mid + block.residual_scale * result;
  }

  const model::ModelSpec& spec_;
  const forest::TokenForest& forest_;
  const LinearDefinitions& definitions_;
  tensor::TensorMap weights_;
  Tensor visible_;
  std::vector<Tensor> angles_;  // by rotation, [T, n / 2]
};

}  // namespace

Tensor reference_hidden(const model::Model& model, const forest::TokenForest& forest, const LinearDefinitions& definitions) {
  return ReferencePass(model, forest, definitions).hidden();
}

Tensor reference_logits(const model::Model& model, const Tensor& hidden) {
  const auto& edges = model.spec().edges;
  const auto& linear = model.head().linear;
  const auto logits = plain_linear(hidden, wide(linear.weight().dense()), wide(linear.bias())) / edges.logit_divisor;
  return edges.logit_cap > 0 ? (logits / edges.logit_cap).tanh() * edges.logit_cap : logits;
}

Tensor reference_loss(const model::Model& model, const forest::TokenForest& forest, const model::LossTargets& targets,
                      const LinearDefinitions& definitions) {
  const auto hidden = reference_hidden(model, forest, definitions).index_select(0, torch::tensor(targets.rows, torch::kLong));
  const auto log_probabilities = reference_logits(model, hidden).log_softmax(1);
  return -(log_probabilities.gather(1, targets.tokens.unsqueeze(1)).squeeze(1) * wide(targets.weights)).sum();
}

}  // namespace quiver::testing
