// POST /v1/completions: the body as a checked request.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "quiver/api/generation.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// The tokens of an answer whose request says nothing of max_tokens (OpenAI).
inline constexpr std::int64_t kDefaultCompletionTokens = 16;

/// A text, or token ids that are taken as they are. An empty one is the BOS token, else the EOS token (prompt_ids).
using Prompt = std::variant<std::string, std::vector<std::int32_t>>;

struct CompletionRequest {
  Generation generation;
  std::vector<Prompt> prompts;  ///< at least one
  bool echoes = false;          ///< the prompt stands before the answer, in text and log-probabilities
  std::int64_t log_probs = -1;  ///< the likeliest so many tokens with each; 0: the chosen one alone; -1: no log-probabilities
};

/// Reads an object (parse_body). Throws ApiError: kInvalidRequest and kUnsupportedValue, with the field as `param`.
CompletionRequest parse_completion(const nlohmann::json& body, const RequestLimits& limits);

/// The token ids of a prompt. A text is encoded without special tokens unless the request adds them. Throws kInvalidRequest for an empty
/// prompt if the tokenizer has neither BOS nor EOS, and for a text with a token that the model has no row for.
std::vector<std::int32_t> prompt_ids(const Prompt& prompt, const text::Tokenizer& tokenizer, bool adds_special_tokens);

}  // namespace quiver::api
