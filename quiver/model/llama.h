// A Llama-family language model: frozen weights, one forward for training, scoring and generation.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/config.h"
#include "quiver/model/kv_cache.h"
#include "quiver/nn/projection.h"
#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// Rows to compute. Without a cache the rows are the forest's and attend to each other; with one, their keys and values
/// are first written to the rows `cache_rows` of the cache. The plan says what they see: rows of the batch while
/// `attend_to_cache` is false, rows of the cache otherwise.
struct ForwardRows {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> positions;
  std::vector<std::int32_t> groups;  ///< of the rows (forest::Sequence::group); empty: all of group 0. For forest_pass.h alone
  backend::AttentionPlanPtr plan;
  KvCache* cache = nullptr;
  std::vector<std::int64_t> cache_rows;
  bool attend_to_cache = false;
};

/// Writes the rows' keys and values of one layer [T, H_kv, D] to the cache, if there is one, and, where the plan is over
/// the cache, replaces them by the cache's.
void update_cache(const ForwardRows& rows, std::size_t layer, torch::Tensor& k, torch::Tensor& v);

/// The rows of a whole forest, without a cache.
ForwardRows forest_rows(const forest::TokenForest& forest);

/// What tells the weights of two models apart.
struct WeightIdentity {
  std::string fingerprint;  ///< of samples of the bytes: written into adapters and libraries (docs/formats.md)
  std::string content;      ///< of all bytes: what was computed from the weights is kept under it
};

/// A value type: copies share all tensors, so a copy with other projections costs nothing. Immutable, thread-safe.
class Llama {
 public:
  /// From tensors by Hugging Face name without the leading "model." (embed_tokens.weight, layers.0.mlp.up_proj.weight,
  /// norm.weight, lm_head.weight unless tied). Throws kMismatch, naming all that are missing, unknown or of another shape.
  Llama(LlamaConfig config, const tensor::TensorMap& weights, tensor::Placement placement, WeightIdentity identity);

  const LlamaConfig& config() const { return config_; }
  /// Names the weights: a SHA-256 over shapes and samples of every tensor as stored (docs/formats.md).
  const std::string& fingerprint() const { return identity_.fingerprint; }
  /// A hash of all bytes of the weights as stored, and of the configuration but for its name. Throws kInternal for a model with other
  /// projections, which the hash does not cover.
  const std::string& content_hash() const;
  /// What config().name says from now on.
  void rename(std::string name) { config_.name = std::move(name); }
  tensor::Placement placement() const { return placement_; }
  /// Where the weights contradict the configuration, a line each: for the user to see.
  const std::vector<std::string>& warnings() const { return warnings_; }
  std::int64_t num_parameters() const;

  /// All linear maps of the blocks by path ("layers.0.self_attn.q_proj").
  const nn::ProjectionMap& projections() const { return projections_; }
  /// The same model computing through other projections. Throws kMismatch unless the paths are the same.
  Llama with_projections(nn::ProjectionMap projections) const;

  /// The final, normalised hidden state of each row, [T, d]: the model's definition, differentiable by autograd in
  /// whatever the projections train. forest_pass.h computes the same faster.
  torch::Tensor hidden(const ForwardRows& rows) const;
  /// The output embedding, [d] -> [V]: hidden states to logits.
  const nn::Projection& head() const { return *head_; }
  /// An empty cache for `capacity` rows.
  KvCache make_cache(std::int64_t capacity) const;

  // The parts, for passes over them.
  struct Block {
    torch::Tensor input_norm, post_norm;
    nn::ProjectionPtr q, k, v, o, gate, up, down;
  };
  const std::vector<Block>& blocks() const { return blocks_; }
  const torch::Tensor& final_norm() const { return final_norm_; }
  const torch::Tensor& embedding() const { return embedding_; }  ///< [V, d]
  /// What enters the first block: the rows' embeddings [T, d], and the cosine and sine [T, D/2] of their positions.
  /// Throws kMismatch for an id outside the vocabulary, kUsage for a position beyond the context.
  struct Embedded {
    torch::Tensor x, cosine, sine;
  };
  Embedded embed(const ForwardRows& rows) const;
  /// Of the scores of attention: 1 / sqrt(D).
  double attention_scale() const;

 private:
  void bind_projections();
  torch::Tensor attention(const Block& block, std::size_t layer, const torch::Tensor& x, const ForwardRows& rows,
                          const Embedded& embedded) const;

  LlamaConfig config_;
  tensor::Placement placement_;
  WeightIdentity identity_;
  std::string content_hash_;  // empty with other projections
  std::vector<std::string> warnings_;
  torch::Tensor embedding_, final_norm_;
  nn::ProjectionPtr head_;
  torch::Tensor frequencies_;  // [D / 2] float64
  nn::ProjectionMap projections_;
  std::vector<Block> blocks_;
};

/// Loads a Hugging Face folder (config.json with model.safetensors or its shards) or a GGUF file.
/// Throws kNotFound, kBadFormat, kUnsupported or kMismatch, naming file and tensor.
Llama load_llama(const std::filesystem::path& path, tensor::Placement placement);

/// WeightIdentity::content of tensors in memory.
std::string weights_hash(const tensor::TensorMap& weights);

/// All weights by Hugging Face name ("model.layers.0.mlp.up_proj.weight"), in the dtypes the model computes in; the head only if it is not
/// the embedding.
tensor::TensorMap llama_weights(const Llama& model);

}  // namespace quiver::model
