#include "quiver/model/model.h"

#include <torch/utils.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/model/families.h"
#include "quiver/model/take_weight.h"
#include "quiver/tensor/mapped.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < 6; ++i) text += (i ? ", '" : "'") + names[i] + "'";
  if (names.size() > 6) text += format(" and {} more", names.size() - 6);
  return text;
}

/// Hands out weights by name, remembering what was asked for, so that nothing is missing or left over unnoticed.
class WeightReader {
 public:
  WeightReader(tensor::TensorMap weights, std::string family) : weights_(std::move(weights)), family_(std::move(family)) {}

  bool has(const std::string& name) const { return weights_.contains(name); }

  torch::Tensor take(const std::string& name, torch::IntArrayRef shape) {
    auto weight = take_weight(weights_, name, shape);
    if (weight.defined()) return weight;
    missing_.push_back(name);
    return torch::empty({0});
  }

  void finish() const {
    if (!missing_.empty()) {
      fail(ErrorKind::kMismatch, "the base model lacks {} tensors: {} (an incomplete download?)", missing_.size(), join(missing_));
    }
    std::vector<std::string> unknown;
    for (const auto& [name, value] : weights_) {
      if (!is_buffer(name)) unknown.push_back(name);
    }
    if (!unknown.empty()) {
      fail(ErrorKind::kUnsupported, "the base model has {} tensors that a model of family '{}' has no use for: {}", unknown.size(), family_,
           join(unknown));
    }
  }

 private:
  /// Old checkpoints store what follows from the configuration: rotary frequencies and masks of attention.
  static bool is_buffer(const std::string& name) {
    constexpr std::string_view kBuffers[] = {"rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias",
                                             ".attention.masked_bias"};
    return std::ranges::any_of(kBuffers, [&](std::string_view ending) { return name.ends_with(ending); });
  }

  tensor::TensorMap weights_;  // those that nobody took yet
  std::string family_;
  std::vector<std::string> missing_;
};

std::vector<Block> compile_blocks(const ModelSpec& spec, const nn::LinearMap& linears, const NormMap& norms) {
  std::vector<Block> blocks;
  for (std::int64_t layer = 0; layer < spec.num_layers(); ++layer) blocks.push_back(compile_block(spec, layer, linears, norms));
  return blocks;
}

/// A map by dense values, or by blocks as they are.
nn::Linear linear_of(const torch::Tensor& weight, const torch::Tensor& bias) {
  if (backend::is_blocks(weight)) return nn::Linear(std::make_shared<nn::QuantizedWeight>(weight), bias);
  return nn::Linear(weight, bias);
}

bool is_same(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes().equals(b.sizes()) && torch::equal(a, b);
}

std::string weight_of(const std::string& path) { return path + ".weight"; }
std::string bias_of(const std::string& path) { return path + ".bias"; }

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

Model::Model(ModelSpec spec, tensor::TensorMap weights, tensor::Placement placement, WeightIdentity identity)
    : spec_(std::move(spec)), placement_(placement), identity_(std::move(identity)) {
  if (identity_.content.empty()) fail(ErrorKind::kInternal, "the weights of '{}' come without a hash of their content", spec_.name);
  WeightReader reader(std::move(weights), spec_.family);
  const auto& names = spec_.names;
  const auto place = [&](const torch::Tensor& t) {
    if (backend::is_blocks(t)) is_quantized_ = true;
    return backend::is_blocks(t) ? t : t.to(placement_.device, placement_.dtype).contiguous();
  };
  const auto take_norm = [&](const std::string& path, std::int64_t width) {  // norms stay in float32: they are small, and computed in it
    const auto take = [&](const std::string& name) {
      return reader.take(name, {width}).to(placement_.device, tensor::compute_dtype(placement_.dtype)).contiguous();
    };
    nn::Norm norm{.weight = take(weight_of(path)), .bias = {}, .epsilon = spec_.block.norm.epsilon};
    if (spec_.block.norm.offset != 0) norm.weight = norm.weight + spec_.block.norm.offset;
    if (spec_.block.norm.kind == NormSpec::Kind::kLayer) norm.bias = take(bias_of(path));
    norms_.emplace(path, norm);
  };
  auto embedding = place(reader.take(weight_of(names.embedding), {spec_.vocab_size, spec_.hidden_size}));
  // The head comes before the layers: what is in memory twice meanwhile must not meet all of them.
  const auto head_bias = spec_.edges.has_head_bias ? place(reader.take(bias_of(names.head), {spec_.vocab_size})) : torch::Tensor();
  auto head = embedding;
  // Some tied checkpoints store the head all the same. Where its values are others, it counts and the configuration does not, as in
  // transformers 5.
  if (!spec_.tie_word_embeddings || reader.has(weight_of(names.head))) {
    head = place(reader.take(weight_of(names.head), {spec_.vocab_size, spec_.hidden_size}));
  }
  const bool is_there = head.dim() >= 2 && (!spec_.edges.has_head_bias || head_bias.numel() > 0);  // else finish() says so
  if (is_there && spec_.tie_word_embeddings && !is_same(head, embedding)) {
    spec_.tie_word_embeddings = false;
    warnings_.push_back(
        format("warning: the configuration of base '{}' says tie_word_embeddings, but its {} has values of its own: these are used",
               spec_.name, weight_of(names.head)));
  }
  if (backend::is_blocks(embedding)) {
    embedding_blocks_ = std::make_shared<nn::QuantizedWeight>(embedding);
  } else {
    embedding_ = embedding;
  }
  if (is_there) {
    const bool shares_blocks = spec_.tie_word_embeddings && embedding_blocks_ != nullptr;
    head_ = {.linear = shares_blocks ? nn::Linear(embedding_blocks_, head_bias)
                                     : linear_of(spec_.tie_word_embeddings ? embedding : head, head_bias),
             .divisor = spec_.edges.logit_divisor,
             .cap = spec_.edges.logit_cap};
  }
  tensor::release_pages(embedding);  // it was read for the head; from now on a row at a time is
  embedding.reset();
  head.reset();
  for (std::int64_t layer = 0; layer < spec_.num_layers(); ++layer) {
    for (const auto& linear : block_linears(spec_)) {
      const auto path = block_path(spec_, layer, linear.name);
      auto weight = place(reader.take(weight_of(path), {linear.out, linear.in}));
      const auto bias = linear.has_bias ? place(reader.take(bias_of(path), {linear.out})) : torch::Tensor();
      if (weight.dim() >= 2 && (!linear.has_bias || bias.numel() > 0)) linears_.emplace(path, linear_of(weight, bias));
    }
    for (const auto& norm : block_norms(spec_)) take_norm(block_path(spec_, layer, norm.name), norm.width);
  }
  take_norm(names.final_norm, spec_.hidden_size);
  if (spec_.edges.has_positions) positions_ = place(reader.take(weight_of(names.positions), {spec_.max_positions, spec_.hidden_size}));
  reader.finish();
  for (const auto& rope : spec_.ropes) frequencies_.push_back(torch::tensor(rope_frequencies(rope, spec_.max_positions), torch::kDouble));
  // The bits of what quantised weights compute are others.
  content_hash_ = sha256_hex(essence(spec_).dump() + identity_.content + (is_quantized_ ? " in blocks" : ""));
  compile(linears_);
}

/// The blocks with these linear maps.
void Model::compile(const nn::LinearMap& linears) {
  blocks_ = compile_blocks(spec_, linears, norms_);
  few_rows_ = FewRows::compile(blocks_);
}

Model Model::with_linears(nn::LinearMap linears) const {
  const auto same_path = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (!std::ranges::equal(linears, linears_, same_path)) {
    fail(ErrorKind::kMismatch, "{} projections do not replace the model's {}: their paths differ", linears.size(), linears_.size());
  }
  Model copy = *this;
  copy.content_hash_.clear();
  copy.compile(linears);
  copy.linears_ = std::move(linears);
  return copy;
}

Model Model::with_weights(const tensor::TensorMap& weights) const {
  Model copy = *this;
  copy.content_hash_.clear();
  const auto& names = spec_.names;
  for (const auto& [name, value] : weights) {
    const auto expect = [&name = name, &value = value](torch::IntArrayRef shape) {
      if (value.sizes().equals(shape)) return;
      std::ostringstream expected;
      expected << shape;
      fail(ErrorKind::kMismatch, "weight '{}' is {}, the model's is {}", name, tensor::describe(value), expected.str());
    };
    const auto placed = [&](torch::Dtype dtype) { return value.to(placement_.device, dtype).contiguous(); };
    const bool is_bias = name.ends_with(".bias");
    const auto path = name.substr(0, name.rfind('.'));
    if (name == weight_of(names.embedding)) {
      expect({spec_.vocab_size, spec_.hidden_size});
      copy.embedding_ = placed(placement_.dtype);
      copy.embedding_blocks_ = nullptr;
      copy.spec_.tie_word_embeddings = false;
    } else if (path == names.head && (!is_bias || head_.linear.bias().defined())) {
      const auto& head = copy.head_.linear;
      expect(is_bias ? head.bias().sizes() : torch::IntArrayRef({spec_.vocab_size, spec_.hidden_size}));
      copy.head_.linear =
          is_bias ? nn::Linear(head.weight().dense(), placed(placement_.dtype)) : nn::Linear(placed(placement_.dtype), head.bias());
      copy.spec_.tie_word_embeddings = false;
    } else if (const auto norm = copy.norms_.find(path); norm != copy.norms_.end() && (!is_bias || norm->second.bias.defined())) {
      auto& own = is_bias ? norm->second.bias : norm->second.weight;
      expect(own.sizes());
      own = placed(tensor::compute_dtype(placement_.dtype)) + (is_bias ? 0 : spec_.block.norm.offset);
    } else if (const auto linear = copy.linears_.find(path);
               linear != copy.linears_.end() && (!is_bias || linear->second.bias().defined())) {
      const auto& own = linear->second;
      expect(is_bias ? own.bias().sizes() : torch::IntArrayRef({own.out_features(), own.in_features()}));
      linear->second =
          is_bias ? nn::Linear(own.weight().dense(), placed(placement_.dtype)) : nn::Linear(placed(placement_.dtype), own.bias());
    } else {
      fail(ErrorKind::kMismatch, "the model has no weight '{}' that could be replaced", name);
    }
  }
  copy.compile(copy.linears_);
  return copy;
}

Model Model::with_head(nn::UpdatePtr update) const {
  Model copy = *this;
  copy.content_hash_.clear();
  copy.head_.linear = head_.linear.with(std::move(update));
  return copy;
}

Model Model::with_embedding(const torch::Tensor& a, const torch::Tensor& b) const {
  if (a.dim() != 2 || b.dim() != 2 || a.size(0) != spec_.vocab_size || b.size(0) != spec_.hidden_size || a.size(1) != b.size(1)) {
    fail(ErrorKind::kMismatch, "an update of the embedding by {} and {} does not fit a model of {} tokens and width {}",
         tensor::describe(a), tensor::describe(b), spec_.vocab_size, spec_.hidden_size);
  }
  Model copy = *this;
  copy.content_hash_.clear();
  const auto place = [&](const torch::Tensor& t) { return t.to(placement_.device, tensor::compute_dtype(placement_.dtype)).contiguous(); };
  copy.embedding_a_ = place(a);
  copy.embedding_b_ = place(b.t());
  return copy;
}

bool Model::is_alike_but_for_updates(const Model& other) const {
  const auto same_norm = [](const auto& a, const auto& b) {
    return a.second.weight.is_same(b.second.weight) && a.second.bias.is_same(b.second.bias);
  };
  const auto same_matrix = [](const auto& a, const auto& b) {
    return a.first == b.first && &a.second.weight() == &b.second.weight() && a.second.bias().is_same(b.second.bias());
  };
  return embedding_.is_same(other.embedding_) && embedding_blocks_ == other.embedding_blocks_ && embedding_a_.is_same(other.embedding_a_) &&
         embedding_b_.is_same(other.embedding_b_) && &head_.linear.weight() == &other.head_.linear.weight() &&
         !head_.linear.has_updates() && !other.head_.linear.has_updates() && std::ranges::equal(norms_, other.norms_, same_norm) &&
         std::ranges::equal(linears_, other.linears_, same_matrix);
}

const std::string& Model::content_hash() const {
  if (content_hash_.empty()) {
    fail(ErrorKind::kInternal, "model '{}' computes with other projections than its weights': the weights' hash does not name it",
         spec_.name);
  }
  return content_hash_;
}

std::int64_t Model::num_parameters() const {
  std::int64_t count = spec_.vocab_size * spec_.hidden_size;
  if (!spec_.tie_word_embeddings) count += head_.linear.num_parameters();
  if (positions_.defined()) count += positions_.numel();
  for (const auto& [path, linear] : linears_) count += linear.num_parameters();
  for (const auto& [path, norm] : norms_) count += norm.weight.numel() + (norm.bias.defined() ? norm.bias.numel() : 0);
  return count;
}

KvCache Model::make_cache(std::int64_t capacity) const {
  const auto& attention = spec_.block.attention;
  return make_kv_cache(spec_.num_layers(), capacity, attention.num_kv_heads, attention.head_dim, placement_);
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

backend::AttentionScores Model::attention_scores() const {
  return {.scale = spec_.block.attention.score_scale(), .cap = spec_.block.attention.cap};
}

Model::Embedded Model::embed(const ForwardRows& rows) const {
  const auto num_rows = static_cast<std::int64_t>(rows.tokens.size());
  auto tokens = torch::empty({num_rows}, torch::kLong);
  auto positions = torch::empty({num_rows}, torch::kDouble);
  const auto token_ids = tensor::mutable_elements<std::int64_t>(tokens, "tokens");
  const auto places = tensor::mutable_elements<double>(positions, "positions");
  for (std::int64_t i = 0; i < num_rows; ++i) {
    const auto token = rows.tokens[static_cast<std::size_t>(i)];
    if (token < 0 || token >= spec_.vocab_size) {
      fail(ErrorKind::kMismatch, "token id {} is outside the model's vocabulary of {} (another model's tokenizer?)", token,
           spec_.vocab_size);
    }
    const auto position = rows.positions[static_cast<std::size_t>(i)];
    if (position >= spec_.max_positions) {
      fail(ErrorKind::kUsage, "a sequence reaches position {}; the model's context is {} tokens", position, spec_.max_positions);
    }
    token_ids[static_cast<std::size_t>(i)] = token;
    places[static_cast<std::size_t>(i)] = static_cast<double>(position);
  }
  Embedded embedded{
      .x = embedding_blocks_ != nullptr ? embedding_blocks_->rows(tokens) : embedding_.index_select(0, tokens.to(placement_.device)),
      .angles = {}};
  if (embedding_a_.defined()) {
    const auto update = embedding_a_.index_select(0, tokens.to(placement_.device)).matmul(embedding_b_);
    embedded.x = (embedded.x.to(update.scalar_type()) + update).to(placement_.dtype);
  }
  if (spec_.edges.embedding_scale != 1) {
    // The scale is rounded to the embeddings' dtype first, as transformers does.
    embedded.x.mul_(torch::tensor(spec_.edges.embedding_scale, torch::TensorOptions(placement_.dtype)).item<double>());
  }
  if (positions_.defined()) embedded.x.add_(positions_.index_select(0, positions.to(torch::kLong).to(placement_.device)));
  const auto wide = tensor::compute_dtype(placement_.dtype);
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    const auto angles = positions.unsqueeze(1) * frequencies_[i];  // [T, n / 2], float64: exact at any position
    const double factor = spec_.ropes[i].attention_factor;
    embedded.angles.push_back({(angles.cos() * factor).to(placement_.device, wide), (angles.sin() * factor).to(placement_.device, wide)});
  }
  return embedded;
}

tensor::TensorMap Model::weights() const {
  tensor::TensorMap weights;
  const auto add = [&](const std::string& name, const torch::Tensor& value) {
    if (value.defined()) weights.emplace(spec_.names.prefix + name, value);
  };
  add(weight_of(spec_.names.embedding), embedding());
  if (positions_.defined()) add(weight_of(spec_.names.positions), positions_);
  for (const auto& [path, norm] : norms_) {
    add(weight_of(path), spec_.block.norm.offset == 0 ? norm.weight : norm.weight - spec_.block.norm.offset);
    add(bias_of(path), norm.bias);
  }
  for (const auto& [path, linear] : linears_) {
    add(weight_of(path), linear.weight().dense());
    add(bias_of(path), linear.bias());
  }
  if (!spec_.tie_word_embeddings) weights.emplace(weight_of(spec_.names.head), head_.linear.weight().dense());
  if (head_.linear.bias().defined()) weights.emplace(bias_of(spec_.names.head), head_.linear.bias());
  return weights;
}

TrainedModel::TrainedModel(const Model& base, const nn::TrainedUpdates& updates) : model_(base) {
  auto linears = base.linears();
  for (const auto& [path, linear] : linears) {
    if (linear.has_updates()) fail(ErrorKind::kInternal, "'{}' has an update already: a base is trained without any", path);
  }
  if (base.head().linear.has_updates()) fail(ErrorKind::kInternal, "the head has an update: a base is trained without any");
  for (const auto& [path, update] : updates) {
    const auto found = linears.find(path);
    if (found == linears.end()) fail(ErrorKind::kMismatch, "the base model has no projection '{}' to train", path);
    found->second = found->second.with(update);
  }
  model_ = base.with_linears(std::move(linears));
}

}  // namespace quiver::model
