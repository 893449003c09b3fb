// The description of a language model: plain data that a family makes from a checkpoint's configuration.
//
// With P, P' pre-norms and Q, Q' post-norms (each may be absent) and r the residual scale, a block is
//
//   mid    = x + r Q(o(attention(q, k, v of P(x))))
//   source = mid, or x where both branches read what enters the block
//   x_next = mid + r Q'(MLP(P'(source)))
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quiver/backend/activation.h"

namespace quiver::model {

/// A size of a model above this is refused, so that products of sizes fit into 64 bits.
inline constexpr std::int64_t kMaxDimension = std::int64_t{1} << 24;
/// More layers are refused, because a description has an entry for each.
inline constexpr std::int64_t kMaxLayers = 4096;

/// How rotary frequencies f_i = theta^(-2 i / n), n = rotary_dim, are adapted to long contexts (docs/models.md has the formulas).
struct RopeSpec {
  enum class Type {
    kDefault,
    kLinear,   ///< all divided by `factor`
    kLlama3,   ///< long waves divided by `factor`, short ones kept, those between blended
    kYarn,     ///< the same, blended by the number of turns in the original context (Peng et al. 2023)
    kDivided,  ///< each by a number of its own (LongRoPE, Ding et al. 2024; tensors of GGUF files)
  };
  Type type = Type::kDefault;
  double theta = 10000;
  std::int64_t rotary_dim = 0;        ///< the first numbers of a head, which are rotated; the others pass
  double attention_factor = 1;        ///< of cosine and sine
  double factor = 1;                  ///< kLinear, kLlama3, kYarn
  double original_context = 0;        ///< kLlama3, kYarn; kDivided where there are `long_divisors`
  double low_freq_factor = 1;         ///< kLlama3
  double high_freq_factor = 4;        ///< kLlama3
  double beta_fast = 32;              ///< kYarn
  double beta_slow = 1;               ///< kYarn
  bool truncate = true;               ///< kYarn: the ends of the blend are whole numbers
  std::vector<double> divisors;       ///< kDivided, [n / 2]
  std::vector<double> long_divisors;  ///< kDivided: instead of these, in a context above `original_context`; may be empty
};

struct NormSpec {
  enum class Kind {
    kRms,    ///< x / rms(x) * w  (Zhang & Sennrich 2019, eq. 4)
    kLayer,  ///< (x - mean) / deviation * w + b  (Ba et al. 2016)
  };
  Kind kind = Kind::kRms;
  double epsilon = 1e-5;
  double offset = 0;  ///< w is what is stored, plus this
};

/// Which norms a block has around its two branches.
enum class NormPlaces { kBefore, kBeforeAndAfter, kAfter };

/// Where the two branches of a block read.
enum class Topology {
  kSequential,      ///< the MLP reads what attention left
  kParallel,        ///< both read what enters the block
  kParallelShared,  ///< and through one norm
};

/// Norms of queries and keys between projection and rotation.
enum class QkNorm { kNone, kHead, kWidth };

/// The rows of the maps to queries, keys and values.
enum class QkvRows {
  kSeparate,  ///< three maps
  kStacked,   ///< one: all of q, then k, then v
  kByHead,    ///< one: q, k and v of the first head, then of the next
};

/// Causal attention with grouped heads.
struct AttentionSpec {
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  QkvRows rows = QkvRows::kSeparate;
  QkNorm qk_norm = QkNorm::kNone;
  bool has_qkv_bias = false;
  bool has_output_bias = false;
  std::optional<double> scale;  ///< of scores; none: 1 / sqrt(head_dim)
  double cap = 0;               ///< scores become cap tanh(score / cap); 0: they do not

  std::int64_t query_width() const { return num_heads * head_dim; }
  std::int64_t key_width() const { return num_kv_heads * head_dim; }
  double score_scale() const;
};

/// down(act(gate(x)) * up(x)), or without a gate down(act(up(x))).
struct MlpSpec {
  std::int64_t intermediate_size = 0;
  backend::Activation activation = backend::Activation::kSilu;
  bool is_gated = true;
  bool is_fused = false;  ///< gate and up are one map, gate's rows first
  bool has_bias = false;
};

struct BlockSpec {
  NormSpec norm;  ///< of all norms of the model
  NormPlaces places = NormPlaces::kBefore;
  Topology topology = Topology::kSequential;
  AttentionSpec attention;
  MlpSpec mlp;
  double residual_scale = 1;

  bool has_pre_norms() const { return places != NormPlaces::kAfter; }
  bool has_post_norms() const { return places != NormPlaces::kBefore; }
};

/// What differs between layers.
struct LayerSpec {
  std::int64_t window = 0;  ///< a query sees the last `window` keys, its own among them; 0: all
  std::int64_t rope = 0;    ///< index in ModelSpec::ropes; kNoRope: nothing is rotated
};
inline constexpr std::int64_t kNoRope = -1;

/// What enters the first block and what leaves the last one.
struct EdgeSpec {
  double embedding_scale = 1;
  bool has_positions = false;  ///< learned position embeddings are added
  bool has_head_bias = false;
  double logit_divisor = 1;
  double logit_cap = 0;  ///< after the division: cap tanh(z / cap); 0: none
};

/// The family's names of tensors, as in its Hugging Face checkpoints without `prefix`. Paths of linear maps are made of them:
/// "<blocks>.<layer>.<name>". Null: the family has none.
struct TensorNames {
  const char* prefix = "model.";  ///< of all but the head
  const char* embedding = "embed_tokens";
  const char* positions = nullptr;
  const char* blocks = "layers";
  const char* final_norm = "norm";
  const char* head = "lm_head";
  const char* attention_norm = "input_layernorm";
  const char* attention_post_norm = nullptr;
  const char* mlp_norm = "post_attention_layernorm";
  const char* mlp_post_norm = nullptr;
  const char* query_norm = "self_attn.q_norm";
  const char* key_norm = "self_attn.k_norm";
  // The maps of q, k, v and of gate, up stand in a checkpoint as one or as several; the other names are those of the other form (fusion.h).
  const char* query = "self_attn.q_proj";
  const char* key = "self_attn.k_proj";
  const char* value = "self_attn.v_proj";
  const char* qkv = "self_attn.qkv_proj";
  const char* output = "self_attn.o_proj";
  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* gate_up = "mlp.gate_up_proj";
  const char* down = "mlp.down_proj";
};

struct ModelSpec {
  std::string name;    ///< for provenance: the checkpoint's own name, else its file name
  std::string family;  ///< model_type of the family (families.h)
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t max_positions = 0;
  bool tie_word_embeddings = false;
  EdgeSpec edges;
  BlockSpec block;
  std::vector<RopeSpec> ropes;    ///< of layers that rotate
  std::vector<LayerSpec> layers;  ///< lowest first
  TensorNames names;

  std::int64_t num_layers() const { return static_cast<std::int64_t>(layers.size()); }
};

/// Throws kBadFormat, beginning with `origin`, unless every size is from 1 to kMaxDimension and every number positive and finite. Products
/// of sizes rely on it, and an absurd file cannot allocate.
void check(const ModelSpec& spec, const std::string& origin);

/// Sets the longest context, `wanted` positions. None: all that the model was made for, but for LongRoPE its original context, in which its
/// numbers are those of short texts. Throws kUsage, beginning with `origin`, for more than the model was made for.
void set_context(ModelSpec& spec, std::optional<std::int64_t> wanted, const std::string& origin);

/// All that decides what a model computes, and nothing else: for hashes.
nlohmann::json essence(const ModelSpec& spec);

/// A linear map of a block with its shape, in the order q, k, v, o, gate, up, down.
struct LinearSpec {
  const char* name;
  std::int64_t out, in;
  bool has_bias;
};
std::vector<LinearSpec> block_linears(const ModelSpec& spec);

/// What to adapt where nobody says: the maps of attention, by last name, or by as much of the path as tells them from others.
std::vector<std::string> attention_targets(const ModelSpec& spec);

/// A norm of a block with its width.
struct BlockNorm {
  const char* name;
  std::int64_t width;
};
std::vector<BlockNorm> block_norms(const ModelSpec& spec);

/// "<blocks>.<layer>.<name>".
std::string block_path(const ModelSpec& spec, std::int64_t layer, const char* name);

/// Inverse frequencies of the rotary embedding in a context of `max_positions`, [rotary_dim / 2], in float64.
std::vector<double> rope_frequencies(const RopeSpec& rope, std::int64_t max_positions);

}  // namespace quiver::model
