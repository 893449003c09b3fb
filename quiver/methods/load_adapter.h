// Adapters as users hold them: PEFT folders, and LoRA files of llama.cpp.
#pragma once

#include <filesystem>

#include "quiver/adapters/lora.h"
#include "quiver/methods/base_model.h"

namespace quiver::methods {

/// Whether the path is a file by the name of a GGUF file.
bool is_gguf_file(const std::filesystem::path& path);

/// A LoRA file of llama.cpp for a base whose checkpoint has this description, named after the file, in float32. Throws as
/// adapters::parse_gguf_lora; kMismatch for an adapter of another architecture, and for factors of weights that the base does not have.
adapters::LoraAdapter load_gguf_lora(const model::ModelSpec& stored, const std::filesystem::path& path);

/// A PEFT folder, or a LoRA file of llama.cpp, on the maps that the base has (in_form_of). Throws as load_gguf_lora and
/// adapters::load_peft.
adapters::LoraAdapter load_adapter(const BaseModel& base, const std::filesystem::path& path);

}  // namespace quiver::methods
