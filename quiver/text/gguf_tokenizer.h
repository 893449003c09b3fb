// A tokenizer.json as GGUF files have tokenizers.
#pragma once

#include <cstdint>
#include <filesystem>

#include "quiver/io/gguf_writer.h"

namespace quiver::text {

/// The tokenizer.ggml.* metadata of the tokenizer in a model folder, from tokenizer.json or as tokenizer.gguf has it, and
/// tokenizer.chat_template where it has one. `architecture` is that of the model (general.architecture), which has `num_rows` tokens: ids
/// that the tokenizer leaves out become unused tokens, and tokens without a row are left out.
///
/// A file names how text is cut (tokenizer.ggml.pre), and does not say it. The name is that of the first known way that gives the ids of
/// this tokenizer on texts of many kinds, as llama.cpp's converter finds it. Throws kUnsupported if there is none, and as load_tokenizer.
io::GgufMetadata gguf_tokenizer(const std::filesystem::path& folder, const std::string& architecture, std::int64_t num_rows);

}  // namespace quiver::text
