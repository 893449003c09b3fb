// What a Llama-family checkpoint says of its shape.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "quiver/io/gguf.h"

namespace quiver::model {

/// A size of a model above this is refused, so that products of sizes fit into 64 bits.
inline constexpr std::int64_t kMaxDimension = std::int64_t{1} << 24;

/// How rotary frequencies are adapted to long contexts.
struct RopeOptions {
  enum class Type { kDefault, kLinear, kLlama3 };
  Type type = Type::kDefault;
  double theta = 10000;
  double factor = 1;               ///< kLinear, kLlama3
  double low_freq_factor = 1;      ///< kLlama3
  double high_freq_factor = 4;     ///< kLlama3
  double original_context = 8192;  ///< kLlama3
};

struct LlamaConfig {
  std::string name;  ///< for provenance: the checkpoint's own name, else its file name
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t max_positions = 0;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  RopeOptions rope;
};

/// From a Hugging Face config.json (transformers 4 and 5 spellings). Throws kBadFormat for missing or absurd values,
/// kUnsupported, by name, for another architecture, activation, rope type, sliding windows or biases.
LlamaConfig config_from_json(const nlohmann::json& config, const std::string& origin);
/// From the llama.* metadata of a GGUF file. Errors as above.
LlamaConfig config_from_gguf(const io::GgufView& gguf);

/// A Hugging Face config.json that config_from_json reads back, name aside.
nlohmann::json config_to_json(const LlamaConfig& config);

/// Inverse frequencies of the rotary embedding, [head_dim / 2], in float64.
std::vector<double> rope_frequencies(const RopeOptions& rope, std::int64_t head_dim);

}  // namespace quiver::model
