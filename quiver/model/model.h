// A language model: a description, frozen weights, and the programs that its blocks compile to.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/block.h"
#include "quiver/model/few_rows.h"
#include "quiver/model/fusion.h"
#include "quiver/model/kv_cache.h"
#include "quiver/model/spec.h"
#include "quiver/nn/head_loss.h"
#include "quiver/nn/linear.h"
#include "quiver/nn/quantized_weight.h"
#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// Rows to compute. Without a cache the rows are the forest's and attend to each other. With a cache, their keys and values are first
/// written to its rows `cache_rows`. `plan` lists the keys that each row attends to. They index rows of this batch, or, if
/// `attend_to_cache`, rows of the cache.
struct ForwardRows {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> positions;
  std::vector<std::int32_t> groups;  ///< adapter assignment of the rows (forest::Sequence::group); empty: all of group 0
  backend::AttentionPlanPtr plan;
  KvCache* cache = nullptr;
  std::vector<std::int64_t> cache_rows;
  bool attend_to_cache = false;
};

/// Writes the rows' keys and values of one layer [T, H_kv, D] to the cache, if there is one. Where the plan is over the cache, replaces
/// them by the cache's.
void update_cache(const ForwardRows& rows, std::size_t layer, torch::Tensor& k, torch::Tensor& v);

/// The rows of a whole forest, without a cache.
ForwardRows forest_rows(const forest::TokenForest& forest);

/// What tells the weights of two models apart.
struct WeightIdentity {
  std::string fingerprint;  ///< of samples of the bytes: written into adapters and libraries (docs/formats.md)
  std::string content;      ///< of all bytes: what was computed from the weights is kept under it
};

/// A value type: copies share all tensors, so a copy with other linear maps costs nothing. Immutable, thread-safe.
class Model {
 public:
  /// From tensors by the family's names (TensorNames): embed_tokens.weight, layers.0.mlp.up_proj.weight, norm.weight, lm_head.weight unless
  /// tied. Throws kMismatch, naming all that are missing, unknown or of another shape.
  /// Matrices may be in blocks (backend::is_blocks): they stay so. Every tensor of `weights` is let go as soon as it is in its place.
  Model(ModelSpec spec, tensor::TensorMap weights, tensor::Placement placement, WeightIdentity identity);

  const ModelSpec& spec() const { return spec_; }
  /// Names the weights: a SHA-256 over shapes and samples of every tensor as stored (docs/formats.md).
  const std::string& fingerprint() const { return identity_.fingerprint; }
  /// A hash of all bytes of the weights as stored, and of the description but for its name. Throws kInternal for a model with other
  /// linear maps, which the hash does not cover.
  const std::string& content_hash() const;
  /// What spec().name says from now on.
  void rename(std::string name) { spec_.name = std::move(name); }
  tensor::Placement placement() const { return placement_; }
  /// Where the weights contradict the description, a line each: for the user to see.
  const std::vector<std::string>& warnings() const { return warnings_; }
  std::int64_t num_parameters() const;

  /// The linear maps of the blocks by path ("layers.0.self_attn.q_proj").
  const nn::LinearMap& linears() const { return linears_; }
  /// The same model with other linear maps. Throws kMismatch unless the paths are the same.
  Model with_linears(nn::LinearMap linears) const;

  /// Hidden states to logits.
  const nn::Head& head() const { return head_; }

  /// The same model with other weights, named as the constructor's: of the embedding, norms, linear maps and the head. A tied head keeps
  /// its own. Throws kMismatch for a name that the model does not have, and for another shape.
  Model with_weights(const tensor::TensorMap& weights) const;
  /// The same model whose head computes with one more update.
  Model with_head(nn::UpdatePtr update) const;
  /// The same model whose embedding of token t is E_t + B A_t before any scale, of `a` [V, r] and `b` [d, r]. Throws kMismatch for other
  /// shapes.
  Model with_embedding(const torch::Tensor& a, const torch::Tensor& b) const;
  /// Whether the models are the same but for updates of the linear maps of blocks: they share all weights.
  bool is_alike_but_for_updates(const Model& other) const;
  /// An empty cache for `capacity` rows.
  KvCache make_cache(std::int64_t capacity) const;
  /// All weights as linear maps [out, in], under the family's Hugging Face names ("model.layers.0.mlp.up_proj.weight"), in the dtypes the
  /// model computes in, without any update. The head only if it is not the embedding.
  tensor::TensorMap weights() const;

  // The parts, for passes over them.
  const std::vector<Block>& blocks() const { return blocks_; }
  /// The blocks for few rows over a KV cache; null where they cannot be computed so.
  const FewRows* few_rows() const { return few_rows_.get(); }
  /// What enters the first block: the rows' embeddings [T, d], and the angles of their positions for each of the spec's rotations.
  /// Throws kMismatch for an id outside the vocabulary, kUsage for a position beyond the context.
  struct Embedded {
    torch::Tensor x;
    std::vector<nn::Angles> angles;
  };
  Embedded embed(const ForwardRows& rows) const;
  backend::AttentionScores attention_scores() const;
  /// [V, d], without any scale or update. A copy where it is in blocks.
  torch::Tensor embedding() const { return embedding_.defined() ? embedding_ : embedding_blocks_->dense(); }
  /// Whether matrices stay in the blocks of their file.
  bool is_quantized() const { return is_quantized_; }

 private:
  void compile(const nn::LinearMap& linears);

  ModelSpec spec_;
  tensor::Placement placement_;
  WeightIdentity identity_;
  std::string content_hash_;  // empty with other linear maps
  std::vector<std::string> warnings_;
  torch::Tensor embedding_;  // [V, d]; undefined in blocks
  std::shared_ptr<const nn::QuantizedWeight> embedding_blocks_;
  bool is_quantized_ = false;
  torch::Tensor embedding_a_, embedding_b_;  // with_embedding's [V, r] and [r, d] in compute_dtype, or undefined
  torch::Tensor positions_;                  // [max_positions, d], or undefined
  NormMap norms_;                            // float32 (float64), with the offset of the spec's norms added
  std::vector<torch::Tensor> frequencies_;   // of each rotation, [n / 2] float64
  nn::Head head_;
  nn::LinearMap linears_;
  std::vector<Block> blocks_;
  std::shared_ptr<const FewRows> few_rows_;  // of blocks_
};

/// A model with trained updates: what training changes, and where its gradients go.
class TrainedModel {
 public:
  /// Updates by path of the linear maps. Throws kInternal for a base that has updates, kMismatch for a path that it does not have.
  TrainedModel(const Model& base, const nn::TrainedUpdates& updates);
  /// The model that computes with what is trained.
  const Model& model() const { return model_; }

 private:
  Model model_;
};

/// What becomes of weights that a file holds in blocks of few bits.
enum class Weights {
  kDense,      ///< values in the model's dtype, in the layout that this machine multiplies fastest
  kQuantized,  ///< linear maps and embeddings in blocks of Q8_0, Q4_0 and Q4_1 stay as they are, and products read them
};

struct LoadOptions {
  std::optional<std::int64_t> context = {};  ///< set_context's
  Fusion fusion = Fusion::kAsStored;         ///< changes neither the fingerprint nor what the model computes
  Weights base_weights = Weights::kDense;    ///< kQuantized needs float32 on the CPU, and a file that has such blocks
};

/// Loads a Hugging Face folder (config.json with model.safetensors or its shards), a GGUF file, or any piece of a GGUF model in several.
/// Throws kNotFound, kBadFormat, kUnsupported or kMismatch, naming file and tensor; kUsage for `base_weights` that the file or the
/// placement does not allow.
Model load_model(const std::filesystem::path& path, tensor::Placement placement, const LoadOptions& options = {});

/// Whether all matrices of the model at `path`, a GGUF file, are in blocks of Q8_0, Q4_0 or Q4_1: kQuantized then keeps all of them. False
/// for a folder. Throws as load_model for a damaged file.
bool is_all_in_blocks(const std::filesystem::path& path);

/// The description of the model that load_model loads, as it is stored. Throws as load_model.
ModelSpec load_spec(const std::filesystem::path& path);

/// A weight by its path as safetensors files of the family hold it, or back: the transposed of some linear maps, else the weight.
torch::Tensor as_stored(const ModelSpec& spec, const std::string& path, const torch::Tensor& weight);

/// WeightIdentity::content of tensors in memory.
std::string weights_hash(const tensor::TensorMap& weights);

}  // namespace quiver::model
