// What requests for completions and for chat completions have in common: how answers are generated, and what is told of them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/api/error.h"
#include "quiver/api/fields.h"
#include "quiver/schedule/request.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// What is done with a field that the API does not know.
enum class UnknownFields {
  kIgnore,  ///< listed in `ignored_fields`
  kRefuse,  ///< kInvalidRequest, as OpenAI does
};

/// What the server knows when it reads a request.
struct RequestLimits {
  std::int64_t vocab_size = 0;             ///< ids of prompts are below; the rows of the model
  std::int64_t context_length = 0;         ///< of prompt and answer together
  std::int64_t default_max_tokens = 1024;  ///< of a chat answer whose request says nothing, if the context leaves so much
  std::int64_t max_prompts = 256;
  std::int64_t max_choices = 16;
  UnknownFields unknown_fields = UnknownFields::kIgnore;
};

/// How much of the routes is told with an answer.
enum class Trace { kNone, kLayers, kFull };

/// The object "quiver" of a request: options of the method that `model` names, and what is told of it.
struct QuiverOptions {
  std::optional<std::int64_t> top_k;                    ///< adapters per token
  std::optional<double> temperature;                    ///< of the router
  std::optional<std::vector<std::string>> adapters;     ///< the members to choose from
  std::vector<std::pair<std::string, double>> weights;  ///< a static mixture, in place of a method
  Trace trace = Trace::kNone;
  std::vector<std::int64_t> context_tokens;  ///< the tokens of each prompt that a method may decide by; one for all prompts, or one each
};

/// A checked request, less its prompts.
struct Generation {
  std::string model;
  std::optional<std::int64_t> max_tokens;  ///< of an answer
  /// All but max_new_tokens (answer_length), stop_ids of spellings (settle_stops), seed and stream (choice_options).
  schedule::RequestOptions options;
  std::optional<std::int64_t> seed;
  std::int64_t num_choices = 1;  ///< per prompt
  std::vector<std::string> stops;
  bool is_stream = false;
  bool includes_usage = false;  ///< of a stream
  bool returns_token_ids = false;
  bool skips_special_tokens = true;  ///< from the answer's text
  bool adds_special_tokens = false;  ///< to prompts that are text
  bool ignores_eos = false;
  std::string cache_salt;
  QuiverOptions quiver_options;
  std::vector<std::string> ignored_fields;  ///< named by the client, without effect
};

/// Reads every field that both kinds of request have. The fields of `max_tokens` and log-probabilities differ, and are the caller's. Throws
/// kInvalidRequest and kUnsupportedValue.
Generation read_generation(Fields& fields, const RequestLimits& limits, std::int64_t num_prompts, std::optional<std::int64_t> max_tokens);
/// Adds to `ignored_fields` what nobody read, or throws.
void settle_unknown_fields(const Fields& fields, UnknownFields rule, std::vector<std::string>& ignored_fields);

/// Completes `stop_ids`: the id of each stop string that is the spelling of a special token, and the ids that end a text unless
/// `ignores_eos`. A special token is left out of a text, so its spelling could not be found there.
void settle_stops(Generation& generation, const text::Tokenizer& tokenizer);

/// How many tokens an answer to a prompt may have: what the request says, else `default_tokens`, as far as the context leaves room.
/// Throws kContextLength if prompt and answer exceed the context. They may fill it.
std::int64_t answer_length(const Generation& generation, std::int64_t num_prompt_tokens, std::int64_t default_tokens,
                           std::int64_t context_length);

/// The options of one choice. Its random numbers depend on the seed, the prompt's index and the choice's alone. `drawn_seed` counts if the
/// request has none.
schedule::RequestOptions choice_options(const Generation& generation, std::int64_t max_new_tokens, std::int64_t drawn_seed,
                                        std::int64_t prompt_index, std::int64_t choice_index);

/// The value of the header X-Quiver-Ignored: names joined by commas. Names that a header cannot hold are replaced, and a long list is cut.
std::string ignored_header(const std::vector<std::string>& ignored_fields);

}  // namespace quiver::api
