// The families of models: how each describes itself in a configuration.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "quiver/io/gguf.h"
#include "quiver/model/spec.h"

namespace quiver::model {

/// How one family's checkpoints are read and written. Everything else about a model is its ModelSpec.
struct Family {
  const char* model_type;                   ///< of a Hugging Face config.json
  const char* gguf_architecture = nullptr;  ///< of a GGUF file; null: none that is read
  /// Both throw kBadFormat for missing values and kUnsupported, by key and value, for what Quiver does not compute.
  ModelSpec (*from_json)(const nlohmann::json& config, const std::string& origin);
  ModelSpec (*from_gguf)(const io::GgufView& gguf) = nullptr;
  /// A config.json that from_json reads back, name aside: for models that come without one. Throws kUnsupported for what none can say.
  nlohmann::json (*to_json)(const ModelSpec& spec);
  /// Whether GGUF files hold the rows of q and k with the members of a rotary pair side by side.
  bool has_paired_gguf_rows = false;
  /// Whether safetensors files hold the weights of linear maps as [in, out].
  bool has_transposed_weights = false;
  /// Whether one map to queries, keys and values has its rows by head.
  bool has_qkv_by_head = false;
  /// What the weights of norms in safetensors files are offset by (NormSpec::offset). Those in GGUF files have it in them.
  double norm_offset = 0;
};

/// All families, one row each.
std::span<const Family> families();
/// The family that a description is of.
const Family& family_of(const ModelSpec& spec);

/// The configuration of the text of a model of text and images ("gemma3"), whose absent keys have defaults of their own. Any other
/// configuration as it is. Throws kBadFormat.
nlohmann::json text_config(const nlohmann::json& config, const std::string& origin);

/// From a Hugging Face config.json (transformers 4 and 5 spellings). Throws kUnsupported for an unknown model_type, else as the family.
ModelSpec spec_from_json(const nlohmann::json& config, const std::string& origin);
/// From the metadata of a GGUF file. Throws kUnsupported for an unknown architecture, else as the family.
ModelSpec spec_from_gguf(const io::GgufView& gguf);
/// A Hugging Face config.json that spec_from_json reads back, but for the name and the offset of norms. Throws kUnsupported for a
/// model that its family's config.json cannot describe.
nlohmann::json spec_to_json(const ModelSpec& spec);

}  // namespace quiver::model
