// Names of modules, lists of names and the text of a configuration: shared by the sources of peft.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quiver/adapters/lora.h"

namespace quiver::adapters {

inline constexpr std::string_view kModelPrefix = "model.";

/// The projection path of a module of transformers: "model.layers.3.self_attn.q_proj" without the leading "model.".
std::string path_of(const std::string& module);
/// Inverse of path_of for a causal language model, where only the head lies outside the decoder.
std::string module_of(const std::string& path);

/// "'a', 'b', 'c' and 5 more".
std::string listed(const std::vector<std::string>& names);

/// adapter_config.json of an adapter, indented as PEFT does, without a final newline. What adapter.peft_config says beyond PeftConfig is
/// kept, and so are its patterns and targets if they are true of the pairs.
std::string peft_config_text(const LoraAdapter& adapter);

}  // namespace quiver::adapters
