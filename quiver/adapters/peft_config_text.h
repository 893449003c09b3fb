// adapter_config.json of an adapter, written. Used by peft.h only.
#pragma once

#include <string>

#include "quiver/adapters/lora.h"

namespace quiver::adapters {

/// The module of transformers ("model.layers.3.self_attn.q_proj") that a projection path stands for.
using ModuleOf = std::string (*)(const std::string& path);

/// adapter_config.json of an adapter, indented as PEFT does, without a final newline. What adapter.peft_config says
/// beyond PeftConfig is kept, and so are its patterns and targets if they are true of the pairs.
std::string peft_config_text(const LoraAdapter& adapter, ModuleOf module_of);

}  // namespace quiver::adapters
