// Names of modules, lists of names and the text of a configuration: shared by the sources of peft.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quiver/adapters/lora.h"

namespace quiver::adapters {

inline constexpr std::string_view kModelPrefix = "model.";
/// What every tensor of a PEFT file begins with.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";

/// The projection path of a module of transformers: "model.layers.3.self_attn.q_proj" without the leading "model.". Names of modules in
/// Microsoft's own code of Phi ("transformer.h.3.mixer.Wqkv") become those of transformers ("layers.3.self_attn.qkv_proj"); the head is
/// "lm_head" whatever its family calls it.
std::string path_of(const std::string& module);
/// Inverse of path_of for a causal language model in transformers, where only the head lies outside the decoder.
std::string module_of(const std::string& path);
/// All names that path_of gives this path, module_of first.
std::vector<std::string> modules_of(const std::string& path);

/// Whether a module is the head.
bool is_head(std::string_view module);

/// "'a', 'b', 'c' and 5 more".
std::string listed(const std::vector<std::string>& names);

/// adapter_config.json of an adapter, indented as PEFT does, without a final newline. What adapter.peft_config says beyond PeftConfig is
/// kept, and so are its patterns and targets if they are true of the pairs.
std::string peft_config_text(const LoraAdapter& adapter);

}  // namespace quiver::adapters
