// What configurations of most families have in common.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "quiver/model/families.h"

namespace quiver::model {

/// Throws kUnsupported, naming `what`, if the condition holds.
void refuse(bool condition, const std::string& origin, const std::string& what);

/// Sizes, norms, rotary positions and tied embeddings under their usual keys. `family` becomes the description's. Refuses windows,
/// quantisation and activations other than silu.
ModelSpec common_from_json(const nlohmann::json& config, const std::string& origin, const char* family);
/// The same from the keys "<prefix>.embedding_length" and so on. Refuses mixtures of experts.
ModelSpec common_from_gguf(const io::GgufView& gguf, const std::string& prefix, const char* family);
/// The configuration that common_from_json reads back.
nlohmann::json common_to_json(const ModelSpec& spec, const char* model_type, const char* architecture);

}  // namespace quiver::model
