#include "quiver/testing/reference_decoder.h"

#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace quiver::testing {
namespace {

using torch::Tensor;

Tensor wide(const Tensor& t) { return t.defined() ? t.to(torch::kCPU, torch::kDouble) : t; }

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  return x / (x.square().mean(-1, /*keepdim=*/true) + epsilon).sqrt() * weight;
}

/// The angle of pair i at position p is p * theta^(-2 i / D), with the long waves stretched as the checkpoint says.
Tensor angles_of(const model::RopeSpec& rope, std::int64_t head_dim, const Tensor& positions) {
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double turns = rope.original_context * f / (2 * std::numbers::pi);
    double stretched = 0;  // share of the frequency that is divided by the factor
    if (rope.type == model::RopeSpec::Type::kLinear) stretched = 1;
    if (rope.type == model::RopeSpec::Type::kLlama3) {
      stretched = 1 - std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    }
    frequencies.push_back(f * (1 - stretched) + f / rope.factor * stretched);
  }
  return positions.unsqueeze(1) * torch::tensor(frequencies, torch::kDouble);  // [T, D / 2]
}

/// x [T, H, D]: the halves of every head as the parts of a complex number, turned by the row's angles.
Tensor rotate(const Tensor& x, const Tensor& angles) {
  const auto half = x.size(2) / 2;
  const auto a = x.narrow(2, 0, half), b = x.narrow(2, half, half), c = angles.cos().unsqueeze(1), s = angles.sin().unsqueeze(1);
  return torch::cat({a * c - b * s, b * c + a * s}, 2);
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

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  std::vector<Tensor> heads;
  for (std::int64_t h = 0; h < q.size(1); ++h) {
    const auto key_head = h / (q.size(1) / k.size(1));
    const auto scores = q.select(1, h).matmul(k.select(1, key_head).t()) / std::sqrt(static_cast<double>(q.size(2)));
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
    if (!magnitude.defined()) return plain_linear(x, weight, bias) + pair.scaling() * read.matmul(a.t()).matmul(b.t());
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

Tensor reference_hidden(const model::Model& model, const forest::TokenForest& forest, const LinearDefinitions& definitions) {
  const auto& spec = model.spec();
  const auto& names = spec.names;
  const auto& attention = spec.block.attention;
  const auto weights = model.weights();
  const auto weight = [&](const std::string& name) { return wide(weights.at("model." + name)); };
  const auto norm = [&](const Tensor& x, const std::string& path) {
    return rms_norm(x, weight(path + ".weight"), spec.block.norm.epsilon);
  };
  const std::vector<std::int64_t> tokens(forest.tokens().begin(), forest.tokens().end());
  const std::vector<double> positions(forest.positions().begin(), forest.positions().end());
  const auto angles = angles_of(attention.rope, attention.head_dim, torch::tensor(positions, torch::kDouble));
  const auto mask = visible(forest);
  auto x = weight(std::string(names.embedding) + ".weight").index_select(0, torch::tensor(tokens, torch::kLong));
  const auto heads = [&](const Tensor& t) { return t.view({t.size(0), -1, attention.head_dim}); };
  for (std::int64_t layer = 0; layer < spec.num_layers; ++layer) {
    const auto linear = [&](const Tensor& input, const char* name) {
      const auto path = model::block_path(spec, layer, name);
      const auto bias = weights.contains("model." + path + ".bias") ? weight(path + ".bias") : Tensor();
      const auto found = definitions.find(path);
      return (found == definitions.end() ? LinearDefinition(plain_linear) : found->second)(input, weight(path + ".weight"), bias);
    };
    const auto normed = norm(x, model::block_path(spec, layer, names.attention_norm));
    const auto q = rotate(heads(linear(normed, names.query)), angles), k = rotate(heads(linear(normed, names.key)), angles);
    x = x + linear(attend(q, k, heads(linear(normed, names.value)), mask), names.output);
    const auto mlp_normed = norm(x, model::block_path(spec, layer, names.mlp_norm));
    const auto gate = linear(mlp_normed, names.gate);
    x = x + linear(gate * gate.sigmoid() * linear(mlp_normed, names.up), names.down);
  }
  return norm(x, names.final_norm);
}

Tensor reference_loss(const model::Model& model, const forest::TokenForest& forest, const model::LossTargets& targets,
                      const LinearDefinitions& definitions) {
  const auto hidden = reference_hidden(model, forest, definitions).index_select(0, torch::tensor(targets.rows, torch::kLong));
  const auto log_probabilities = hidden.matmul(wide(model.head().weight().dense()).t()).log_softmax(1);
  return -(log_probabilities.gather(1, targets.tokens.unsqueeze(1)).squeeze(1) * wide(targets.weights)).sum();
}

}  // namespace quiver::testing
