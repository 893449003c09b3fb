#include "quiver/api/tokenize.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "quiver/api/answer.h"
#include "quiver/api/json_text.h"
#include "quiver/base/error.h"

namespace quiver::api {
namespace {

using nlohmann::json;

constexpr std::size_t kMostNameBytes = 128;

void append_optional(std::string& out, const char* key, const std::optional<std::string>& text) {
  out += ",\"";
  out += key;
  out += "\":";
  if (text) {
    append_json(out, *text);
  } else {
    out += "null";
  }
}

std::optional<std::string> spelling(const text::Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? tokenizer.token(*id) : std::nullopt;
}

std::vector<std::int32_t> encoded(const std::string& text, const text::Tokenizer& tokenizer, bool adds_special_tokens, const char* param) {
  try {
    return tokenizer.encode(text, {.add_special_tokens = adds_special_tokens});
  } catch (const Error& error) {
    throw ApiError(Reason::kInvalidRequest, error.what(), param);
  }
}

std::string read_adapter_name(Fields& fields) {
  const auto name = fields.text("lora_name");
  if (!name) throw ApiError(Reason::kInvalidRequest, "'lora_name' is missing; expected the adapter's name", "lora_name");
  if (!is_model_name(*name)) {
    throw ApiError(
        Reason::kInvalidRequest,
        format("'lora_name' is '{}'; expected 1 to {} of letters, digits, '.', '_', ':', '+' and '-'", clipped(*name), kMostNameBytes),
        "lora_name");
  }
  return *name;
}

}  // namespace

std::string tokenize_answer(const json& body, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template,
                            const RequestLimits& limits) {
  Fields fields(body);
  const json* messages = fields.find("messages");
  const auto prompt = fields.text("prompt");
  if ((messages != nullptr) == prompt.has_value()) {
    throw ApiError(Reason::kInvalidRequest,
                   prompt ? "'prompt' and 'messages' are both given; give one of the two" : "'prompt' is missing; expected a string",
                   "prompt");
  }
  const bool adds_special_tokens = fields.boolean("add_special_tokens").value_or(messages == nullptr);
  const bool returns_spellings = fields.boolean("return_token_strs").value_or(false);
  const bool adds_prompt = fields.boolean("add_generation_prompt").value_or(true);
  fields.ignore("model");
  std::vector<std::string> ignored;
  std::string text = prompt.value_or("");
  if (messages != nullptr) {
    const auto list = read_messages(*messages, limits.unknown_fields, ignored);
    if (chat_template == nullptr) throw no_chat_template();
    text = render_chat(*chat_template, list, adds_prompt ? AnswerStart::kNewMessage : AnswerStart::kWithoutHeader);
  }
  settle_unknown_fields(fields, limits.unknown_fields, ignored);
  const auto ids = encoded(text, tokenizer, adds_special_tokens, messages == nullptr ? "prompt" : "messages");
  std::string out = R"({"count":)";
  append_json(out, static_cast<std::int64_t>(ids.size()));
  out += R"(,"max_model_len":)";
  append_json(out, limits.context_length);
  out += R"(,"tokens":)";
  append_json(out, ids);
  out += R"(,"token_strs":)";
  if (!returns_spellings) return out + "null}";
  out += '[';
  for (const auto id : ids) {
    if (out.back() != '[') out += ',';
    append_json(out, tokenizer.token(id).value_or(""));
  }
  return out + "]}";
}

std::string detokenize_answer(const json& body, const text::Tokenizer& tokenizer, const RequestLimits& limits) {
  Fields fields(body);
  const json* list = fields.array("tokens");
  if (list == nullptr) throw ApiError(Reason::kInvalidRequest, "'tokens' is missing; expected an array of token ids", "tokens");
  fields.ignore("model");
  std::vector<std::string> ignored;
  settle_unknown_fields(fields, limits.unknown_fields, ignored);
  std::vector<std::int32_t> ids;
  for (const auto& value : *list) {
    ids.push_back(static_cast<std::int32_t>(integer_value("tokens", value, 0, limits.vocab_size - 1)));
  }
  std::string out = R"({"prompt":)";
  append_json(out, tokenizer.decode(ids));
  return out + '}';
}

std::string tokenizer_info(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template, const RequestLimits& limits) {
  std::string out = R"({"tokenizer_class":"PreTrainedTokenizerFast","model_max_length":)";
  append_json(out, limits.context_length);
  out += R"(,"vocab_size":)";
  append_json(out, tokenizer.vocab_size());
  append_optional(out, "bos_token", spelling(tokenizer, tokenizer.bos_id()));
  append_optional(out, "eos_token", spelling(tokenizer, tokenizer.eos_id()));
  append_optional(out, "pad_token", spelling(tokenizer, tokenizer.pad_id()));
  append_optional(out, "chat_template", chat_template == nullptr ? std::nullopt : std::optional(chat_template->source()));
  return out + '}';
}

LoadAdapterRequest parse_load_adapter(const json& body, UnknownFields unknown_fields) {
  Fields fields(body);
  LoadAdapterRequest request{.name = read_adapter_name(fields)};
  const auto path = fields.text("lora_path");
  if (!path || path->empty() || path->find('\0') != std::string::npos) {
    throw ApiError(Reason::kInvalidRequest, "'lora_path' is missing; expected the adapter's folder", "lora_path");
  }
  request.path = *path;
  request.replaces = fields.boolean("load_inplace").value_or(false);
  for (const char* name : {"base_model_name", "is_3d_lora_weight"}) fields.ignore(name);
  std::vector<std::string> ignored;
  settle_unknown_fields(fields, unknown_fields, ignored);
  return request;
}

UnloadAdapterRequest parse_unload_adapter(const json& body, UnknownFields unknown_fields) {
  Fields fields(body);
  UnloadAdapterRequest request{.name = read_adapter_name(fields)};
  request.waits = fields.boolean("wait").value_or(false);
  fields.ignore("lora_int_id");
  std::vector<std::string> ignored;
  settle_unknown_fields(fields, unknown_fields, ignored);
  return request;
}

bool is_model_name(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._:+-").find(c) != std::string_view::npos;
  };
  return !name.empty() && name.size() <= kMostNameBytes && std::ranges::all_of(name, is_allowed);
}

}  // namespace quiver::api
