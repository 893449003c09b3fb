#include "quiver/model/llama.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "quiver/backend/ops.h"
#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

struct Linear {
  const char* name;
  std::int64_t out, in;
};

/// The linear maps of one block with their shapes.
std::vector<Linear> block_linears(const LlamaConfig& c) {
  const auto q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  return {{"self_attn.q_proj", q, c.hidden_size},
          {"self_attn.k_proj", kv, c.hidden_size},
          {"self_attn.v_proj", kv, c.hidden_size},
          {"self_attn.o_proj", c.hidden_size, q},
          {"mlp.gate_proj", c.intermediate_size, c.hidden_size},
          {"mlp.up_proj", c.intermediate_size, c.hidden_size},
          {"mlp.down_proj", c.hidden_size, c.intermediate_size}};
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < 6; ++i) text += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > 6) text += format(" and {} more", names.size() - 6);
  return text;
}

/// Hands out weights by name, remembering what was asked for, so that nothing is missing or left over unnoticed.
class WeightReader {
 public:
  explicit WeightReader(const tensor::TensorMap& weights) : weights_(weights) {}

  torch::Tensor take(const std::string& name, torch::IntArrayRef shape) {
    const auto found = weights_.find(name);
    if (found == weights_.end()) {
      missing_.push_back(name);
      return torch::empty({0});
    }
    taken_.push_back(name);
    if (!found->second.sizes().equals(shape)) {
      std::ostringstream expected;
      expected << shape;
      fail(ErrorKind::kMismatch, "tensor '{}' of the base model is {}; its configuration says {}", name, tensor::describe(found->second),
           expected.str());
    }
    return found->second;
  }

  void finish() const {
    if (!missing_.empty()) {
      fail(ErrorKind::kMismatch, "the base model lacks {} tensors: {} (an incomplete download?)", missing_.size(), join(missing_));
    }
    std::vector<std::string> unknown;
    for (const auto& [name, value] : weights_) {
      // Old checkpoints store the rotary frequencies, which follow from the configuration.
      if (std::ranges::find(taken_, name) == taken_.end() && !name.ends_with("rotary_emb.inv_freq")) unknown.push_back(name);
    }
    if (!unknown.empty()) {
      fail(ErrorKind::kUnsupported, "the base model has {} tensors that a Llama has no use for: {}", unknown.size(), join(unknown));
    }
  }

 private:
  const tensor::TensorMap& weights_;
  std::vector<std::string> taken_, missing_;
};

}  // namespace

ForwardRows forest_rows(const forest::TokenForest& forest) {
  ForwardRows rows{.tokens = {forest.tokens().begin(), forest.tokens().end()},
                   .positions = {forest.positions().begin(), forest.positions().end()},
                   .plan = backend::plan_forest(forest)};
  if (std::ranges::any_of(forest.segments(), [](const auto& segment) { return segment.group != 0; })) {
    rows.groups.resize(rows.tokens.size());
    for (const auto& s : forest.segments()) std::fill_n(rows.groups.begin() + s.first_row, s.length, s.group);
  }
  return rows;
}

Llama::Llama(LlamaConfig config, const tensor::TensorMap& weights, tensor::Placement placement, WeightIdentity identity)
    : config_(std::move(config)), placement_(placement), identity_(std::move(identity)) {
  if (identity_.content.empty()) fail(ErrorKind::kInternal, "the weights of '{}' come without a hash of their content", config_.name);
  content_hash_ = sha256_hex(config_to_json(config_).dump() + identity_.content);
  WeightReader reader(weights);
  const auto place = [&](const torch::Tensor& t) { return t.to(placement_.device, placement_.dtype).contiguous(); };
  const auto norm = [&](const std::string& name) {  // norms stay in float32: they are small, and computed in it
    const auto wide = placement_.dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
    return reader.take(name, {config_.hidden_size}).to(placement_.device, wide).contiguous();
  };
  embedding_ = place(reader.take("embed_tokens.weight", {config_.vocab_size, config_.hidden_size}));
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const auto prefix = format("layers.{}.", layer);
    for (const auto& linear : block_linears(config_)) {
      const auto path = prefix + linear.name;
      const auto weight = place(reader.take(path + ".weight", {linear.out, linear.in}));
      if (weight.dim() == 2) projections_.emplace(path, std::make_shared<nn::DenseProjection>(weight));
    }
    Block block;
    block.input_norm = norm(prefix + "input_layernorm.weight");
    block.post_norm = norm(prefix + "post_attention_layernorm.weight");
    blocks_.push_back(std::move(block));
  }
  final_norm_ = norm("norm.weight");
  if (config_.tie_word_embeddings) {
    head_ = std::make_shared<nn::DenseProjection>(embedding_);
    // Some tied checkpoints store the head all the same. Where its values are others, it counts and the configuration does not, as in
    // transformers 5.
    if (weights.contains("lm_head.weight")) {
      const auto weight = place(reader.take("lm_head.weight", {config_.vocab_size, config_.hidden_size}));
      if (weight.dim() == 2 && !torch::equal(weight, embedding_)) {
        head_ = std::make_shared<nn::DenseProjection>(weight);
        config_.tie_word_embeddings = false;
        warnings_.push_back(
            format("warning: the configuration of base '{}' says tie_word_embeddings, but its lm_head.weight has values of its own: these "
                   "are used",
                   config_.name));
      }
    }
  } else {
    const auto weight = place(reader.take("lm_head.weight", {config_.vocab_size, config_.hidden_size}));
    if (weight.dim() == 2) head_ = std::make_shared<nn::DenseProjection>(weight);
  }
  reader.finish();
  const auto frequencies = rope_frequencies(config_.rope, config_.head_dim);
  frequencies_ = torch::tensor(frequencies, torch::kDouble);
  bind_projections();
}

void Llama::bind_projections() {
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const auto at = [&](const char* name) { return projections_.at(format("layers.{}.{}", layer, name)); };
    Block& block = blocks_[layer];
    block.q = at("self_attn.q_proj");
    block.k = at("self_attn.k_proj");
    block.v = at("self_attn.v_proj");
    block.o = at("self_attn.o_proj");
    block.gate = at("mlp.gate_proj");
    block.up = at("mlp.up_proj");
    block.down = at("mlp.down_proj");
  }
}

Llama Llama::with_projections(nn::ProjectionMap projections) const {
  const auto same_path = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (!std::ranges::equal(projections, projections_, same_path)) {
    fail(ErrorKind::kMismatch, "{} projections do not replace the model's {}: their paths differ", projections.size(), projections_.size());
  }
  Llama copy = *this;
  copy.content_hash_.clear();
  copy.projections_ = std::move(projections);
  copy.bind_projections();
  return copy;
}

const std::string& Llama::content_hash() const {
  if (content_hash_.empty()) {
    fail(ErrorKind::kInternal, "model '{}' computes with other projections than its weights': the weights' hash does not name it",
         config_.name);
  }
  return content_hash_;
}

std::int64_t Llama::num_parameters() const {
  std::int64_t count = embedding_.numel() + final_norm_.numel();
  if (!config_.tie_word_embeddings) count += head_->in_features() * head_->out_features();
  for (const auto& [path, projection] : projections_) count += projection->in_features() * projection->out_features();
  for (const auto& block : blocks_) count += block.input_norm.numel() + block.post_norm.numel();
  return count;
}

KvCache Llama::make_cache(std::int64_t capacity) const {
  return make_kv_cache(config_.num_layers, capacity, config_.num_kv_heads, config_.head_dim, placement_);
}

void update_cache(const ForwardRows& rows, std::size_t layer, torch::Tensor& k, torch::Tensor& v) {
  if (rows.cache == nullptr) return;
  const auto at = torch::tensor(rows.cache_rows, torch::kLong).to(k.device());
  rows.cache->keys[layer].index_copy_(0, at, k);
  rows.cache->values[layer].index_copy_(0, at, v);
  if (!rows.attend_to_cache) return;
  k = rows.cache->keys[layer];
  v = rows.cache->values[layer];
}

double Llama::attention_scale() const { return 1 / std::sqrt(static_cast<double>(config_.head_dim)); }

torch::Tensor Llama::attention(const Block& block, std::size_t layer, const torch::Tensor& x, const ForwardRows& rows,
                               const Embedded& embedded) const {
  const auto num_rows = x.size(0);
  auto q = block.q->forward(x).view({num_rows, config_.num_heads, config_.head_dim});
  auto k = block.k->forward(x).view({num_rows, config_.num_kv_heads, config_.head_dim});
  auto v = block.v->forward(x).view({num_rows, config_.num_kv_heads, config_.head_dim});
  q = backend::rotate(q, embedded.cosine, embedded.sine);
  k = backend::rotate(k, embedded.cosine, embedded.sine);
  update_cache(rows, layer, k, v);
  const auto mixed = backend::forest_attention(q, k, v, rows.plan, attention_scale());
  return block.o->forward(mixed.reshape({num_rows, config_.num_heads * config_.head_dim}));
}

Llama::Embedded Llama::embed(const ForwardRows& rows) const {
  const auto num_rows = static_cast<std::int64_t>(rows.tokens.size());
  auto tokens = torch::empty({num_rows}, torch::kLong);
  auto positions = torch::empty({num_rows}, torch::kDouble);
  const auto token_ids = tensor::mutable_elements<std::int64_t>(tokens, "tokens");
  const auto places = tensor::mutable_elements<double>(positions, "positions");
  for (std::int64_t i = 0; i < num_rows; ++i) {
    const auto token = rows.tokens[static_cast<std::size_t>(i)];
    if (token < 0 || token >= config_.vocab_size) {
      fail(ErrorKind::kMismatch, "token id {} is outside the model's vocabulary of {} (another model's tokenizer?)", token,
           config_.vocab_size);
    }
    const auto position = rows.positions[static_cast<std::size_t>(i)];
    if (position >= config_.max_positions) {
      fail(ErrorKind::kUsage, "a sequence reaches position {}; the model's context is {} tokens", position, config_.max_positions);
    }
    token_ids[static_cast<std::size_t>(i)] = token;
    places[static_cast<std::size_t>(i)] = static_cast<double>(position);
  }
  const auto angles = positions.unsqueeze(1) * frequencies_;  // [T, D/2], float64: exact at any position
  const auto wide = placement_.dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
  return {embedding_.index_select(0, tokens.to(placement_.device)), angles.cos().to(placement_.device, wide),
          angles.sin().to(placement_.device, wide)};
}

torch::Tensor Llama::hidden(const ForwardRows& rows) const {
  const auto embedded = embed(rows);
  auto x = embedded.x;  // [T, d]
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Block& block = blocks_[layer];
    x = x + attention(block, layer, backend::rms_norm(x, block.input_norm, config_.rms_norm_eps), rows, embedded);
    const auto normed = backend::rms_norm(x, block.post_norm, config_.rms_norm_eps);
    x = x + block.down->forward(backend::swiglu(block.gate->forward(normed), block.up->forward(normed)));
  }
  return backend::rms_norm(x, final_norm_, config_.rms_norm_eps);
}

tensor::TensorMap llama_weights(const Llama& model) {
  tensor::TensorMap weights;
  weights.emplace("model.embed_tokens.weight", model.embedding());
  weights.emplace("model.norm.weight", model.final_norm());
  for (const auto& [path, projection] : model.projections()) weights.emplace("model." + path + ".weight", projection->base_weight());
  for (std::size_t layer = 0; layer < model.blocks().size(); ++layer) {
    const auto prefix = format("model.layers.{}.", layer);
    weights.emplace(prefix + "input_layernorm.weight", model.blocks()[layer].input_norm);
    weights.emplace(prefix + "post_attention_layernorm.weight", model.blocks()[layer].post_norm);
  }
  if (!model.config().tie_word_embeddings) weights.emplace("lm_head.weight", model.head().base_weight());
  return weights;
}

}  // namespace quiver::model
