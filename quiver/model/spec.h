// The description of a language model: plain data that a family makes from a checkpoint's configuration.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quiver::model {

/// A size of a model above this is refused, so that products of sizes fit into 64 bits.
inline constexpr std::int64_t kMaxDimension = std::int64_t{1} << 24;

/// How rotary frequencies are adapted to long contexts.
struct RopeSpec {
  enum class Type { kDefault, kLinear, kLlama3 };
  Type type = Type::kDefault;
  double theta = 10000;
  double factor = 1;               ///< kLinear, kLlama3
  double low_freq_factor = 1;      ///< kLlama3
  double high_freq_factor = 4;     ///< kLlama3
  double original_context = 8192;  ///< kLlama3
};

/// Root-mean-square normalisation (Zhang & Sennrich 2019, eq. 4).
struct NormSpec {
  double epsilon = 1e-5;
};

/// Causal attention with grouped heads and rotary positions, scores scaled by 1 / sqrt(head_dim).
struct AttentionSpec {
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool has_qkv_bias = false;
  bool has_output_bias = false;
  RopeSpec rope;

  std::int64_t query_width() const { return num_heads * head_dim; }
  std::int64_t key_width() const { return num_kv_heads * head_dim; }
};

/// down(silu(gate(x)) * up(x))  (Shazeer 2020, SwiGLU).
struct MlpSpec {
  std::int64_t intermediate_size = 0;
  bool has_bias = false;
};

/// One block: x + o(attention(norm(x))), and the same with the MLP after a norm of its own.
struct BlockSpec {
  NormSpec norm;
  AttentionSpec attention;
  MlpSpec mlp;
};

/// The family's names of tensors, as in its Hugging Face checkpoints without the leading "model.". Paths of linear maps are made of them:
/// "<blocks>.<layer>.<name>".
struct TensorNames {
  const char* embedding = "embed_tokens";
  const char* blocks = "layers";
  const char* final_norm = "norm";
  const char* head = "lm_head";
  const char* attention_norm = "input_layernorm";
  const char* mlp_norm = "post_attention_layernorm";
  const char* query = "self_attn.q_proj";
  const char* key = "self_attn.k_proj";
  const char* value = "self_attn.v_proj";
  const char* output = "self_attn.o_proj";
  const char* gate = "mlp.gate_proj";
  const char* up = "mlp.up_proj";
  const char* down = "mlp.down_proj";
};

struct ModelSpec {
  std::string name;    ///< for provenance: the checkpoint's own name, else its file name
  std::string family;  ///< model_type of the family (families.h)
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t max_positions = 0;
  bool tie_word_embeddings = false;
  BlockSpec block;
  TensorNames names;
};

/// Throws kBadFormat, beginning with `origin`, unless every size is from 1 to kMaxDimension and every number positive and finite. Products
/// of sizes rely on it, and an absurd file cannot allocate.
void check(const ModelSpec& spec, const std::string& origin);

/// A linear map of a block with its shape, in the order q, k, v, o, gate, up, down.
struct LinearSpec {
  const char* name;
  std::int64_t out, in;
  bool has_bias;
};
std::vector<LinearSpec> block_linears(const ModelSpec& spec);

/// "<blocks>.<layer>.<name>".
std::string block_path(const ModelSpec& spec, std::int64_t layer, const char* name);

/// Inverse frequencies of the rotary embedding, [head_dim / 2], in float64.
std::vector<double> rope_frequencies(const RopeSpec& rope, std::int64_t head_dim);

}  // namespace quiver::model
