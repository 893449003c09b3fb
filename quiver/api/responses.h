// Answers as the JSON that OpenAI's clients read, whole and as events of a stream.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/api/answer.h"
#include "quiver/api/error.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

enum class Endpoint { kCompletions, kChat };

/// What all answers to one request have in common.
struct AnswerHead {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string id;                   ///< "cmpl-..." or "chatcmpl-..."
  std::int64_t created = 0;         ///< seconds since 1970
  std::string model;                ///< as the request names it
  std::int64_t seed = 0;            ///< of the random numbers: "quiver":{"seed"}
  std::int64_t top_log_probs = -1;  ///< -1: "logprobs" is null; 0: the chosen token alone (of a chat, no list of others)
  bool returns_token_ids = false;
  bool includes_usage = false;  ///< chunks of a stream carry "usage":null, and the last one the figures
};

/// A choice, or what came to it.
struct Choice {
  std::int64_t index = 0;
  Delta delta;
  std::vector<std::int32_t> prompt_ids = {};  ///< told where `returns_token_ids`, if not empty: of a stream, with the first chunk
  std::string quiver_members = {};            ///< further members of "quiver" of the choice: `"route":{...}`, JSON text
};

struct Usage {
  std::int64_t num_prompt_tokens = 0;
  std::int64_t num_answer_tokens = 0;  ///< generated: without an echo, with EOS tokens
  std::int64_t num_cached_tokens = 0;  ///< of the prompt
};

/// The whole answer. "usage" and "quiver":{"seed"} always are in it.
std::string answer_body(const AnswerHead& head, std::span<const Choice> choices, const Usage& usage, const text::Tokenizer& tokenizer);

/// The event that opens a choice of a chat: the role. Nothing for completions.
std::string first_event(const AnswerHead& head, std::int64_t index, std::span<const std::int32_t> prompt_ids = {});
/// What came to a choice, as one event; of a chat, its end is an event of its own. Nothing for an empty delta.
std::string delta_event(const AnswerHead& head, const Choice& choice, const text::Tokenizer& tokenizer);
/// The event after all choices, only where `includes_usage`; else nothing.
std::string usage_event(const AnswerHead& head, const Usage& usage);
/// An error after the stream has begun. The stream ends with it, without kDoneEvent.
std::string error_event(const ApiError& error);
inline constexpr const char* kDoneEvent = "data: [DONE]\n\n";
inline constexpr const char* kPingEvent = ": ping\n\n";  ///< a comment, which clients skip

inline constexpr const char* kStreamContentType = "text/event-stream; charset=utf-8";
/// Headers of a stream: no cache and no proxy may hold it back.
Headers stream_headers();

/// A name that requests may use, as GET /v1/models tells it.
struct ModelObject {
  std::string id;
  std::int64_t created = 0;  ///< seconds since 1970 when it was loaded
  std::string parent;        ///< the base's name; empty for the base
  std::int64_t max_model_len = 0;
  std::string kind;    ///< "base", "adapter", "method" or "alias"
  std::string method;  ///< empty: null
  std::vector<std::string> adapters;
  std::string combine;  ///< empty: null
  std::string decides;  ///< "token", "prompt" or "once"
  std::string sha256;
  bool is_ready = true;
  std::int64_t bytes = 0;  ///< of the adapter's file; not told here
};
std::string model_body(const ModelObject& model);
std::string models_body(std::span<const ModelObject> models);

}  // namespace quiver::api
