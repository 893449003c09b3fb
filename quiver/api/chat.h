// POST /v1/chat/completions: the body as a checked request.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "quiver/api/generation.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// Where the answer begins.
enum class AnswerStart {
  kNewMessage,     ///< after the header of a new message of the assistant
  kFinalMessage,   ///< at the end of the last message, which is the assistant's
  kWithoutHeader,  ///< right after the last message (`add_generation_prompt` is false)
};

struct ChatRequest {
  Generation generation;
  std::vector<text::Message> messages;  ///< roles system, user, assistant
  AnswerStart start = AnswerStart::kNewMessage;
  bool gives_log_probs = false;
  std::int64_t top_log_probs = 0;  ///< with each token, the likeliest so many; generation.options.top_log_probs says both
};

/// Reads an object (parse_body). Throws ApiError: kInvalidRequest and kUnsupportedValue, with the field as `param`.
ChatRequest parse_chat(const nlohmann::json& body, const RequestLimits& limits);

/// Reads a list of messages: 1 to 4096 of the roles system, developer (read as system), user and assistant. `content` is a string, or a
/// list of text parts, which are joined by line breaks. The assistant's may be null. Adds to `ignored_fields` what has no effect.
std::vector<text::Message> read_messages(const nlohmann::json& list, UnknownFields unknown_fields,
                                         std::vector<std::string>& ignored_fields);

/// The text that the model goes on from. Throws kInvalidRequest if the template refuses the messages, or if a message that is to be
/// continued cannot be found in what the template wrote.
std::string render_chat(const text::ChatTemplate& chat_template, std::span<const text::Message> messages, AnswerStart start);

/// The error for a base without a chat template.
ApiError no_chat_template();

}  // namespace quiver::api
