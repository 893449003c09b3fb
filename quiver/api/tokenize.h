// The small endpoints: tokenizer and adapters.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/api/chat.h"
#include "quiver/api/generation.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// POST /tokenize with {"prompt"} or {"messages"}: {"count","max_model_len","tokens","token_strs"}, as vLLM answers. `add_special_tokens`
/// is true for a prompt and false for messages if absent, as in vLLM. `chat_template` may be null. Throws ApiError.
std::string tokenize_answer(const nlohmann::json& body, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template,
                            const RequestLimits& limits);

/// POST /detokenize with {"tokens"}: {"prompt"}, special tokens included. Throws ApiError.
std::string detokenize_answer(const nlohmann::json& body, const text::Tokenizer& tokenizer, const RequestLimits& limits);

/// GET /tokenizer_info: spellings of the special tokens and the chat template, by the names of tokenizer_config.json.
std::string tokenizer_info(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template, const RequestLimits& limits);

/// POST /v1/load_lora_adapter.
struct LoadAdapterRequest {
  std::string name;
  std::string path;
  bool replaces = false;  ///< `load_inplace`: an adapter of this name is replaced
};
/// Reads {"lora_name","lora_path","load_inplace"}. Throws ApiError. Whether the path is allowed is the caller's to say.
LoadAdapterRequest parse_load_adapter(const nlohmann::json& body, UnknownFields unknown_fields = UnknownFields::kIgnore);

/// POST /v1/unload_lora_adapter.
struct UnloadAdapterRequest {
  std::string name;
  bool waits = false;  ///< `wait`: the answer comes when the last request that uses the adapter has ended
};
/// Reads {"lora_name","wait"}. Throws ApiError.
UnloadAdapterRequest parse_unload_adapter(const nlohmann::json& body, UnknownFields unknown_fields = UnknownFields::kIgnore);

/// True for 1 to 128 of [A-Za-z0-9._:+-]: what clients may put into a model's name without escaping it.
bool is_model_name(std::string_view name);

}  // namespace quiver::api
