#include "quiver/api/completions.h"

#include <limits>
#include <optional>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::api {
namespace {

using nlohmann::json;

std::vector<std::int32_t> read_ids(const std::string& param, const json& list, std::int64_t vocab_size) {
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const auto& value : list) {
    const bool is_id = value.is_number_unsigned() && value.get<std::uint64_t>() < static_cast<std::uint64_t>(vocab_size);
    // The name of an element is costly to make.
    const auto id = is_id ? value.get<std::int64_t>() : integer_value(format("{}[{}]", param, ids.size()), value, 0, vocab_size - 1);
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

constexpr const char* kExpectedPrompt = "a string, an array of strings, an array of token ids, or an array of arrays of token ids";

std::vector<Prompt> read_prompts(Fields& fields, const RequestLimits& limits) {
  const json* value = fields.find("prompt");
  if (value == nullptr || (value->is_structured() && value->empty() && value->is_array())) return {std::string()};
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array()) fail_field("prompt", *value, kExpectedPrompt);
  if (value->front().is_number()) return {read_ids("prompt", *value, limits.vocab_size)};
  if (static_cast<std::int64_t>(value->size()) > limits.max_prompts) {
    fail_field("prompt", *value, format("at most {} prompts", limits.max_prompts));
  }
  std::vector<Prompt> prompts;
  for (const auto& prompt : *value) {
    const auto param = format("prompt[{}]", prompts.size());
    if (prompt.type() != value->front().type() || !(prompt.is_string() || prompt.is_array())) fail_field(param, prompt, kExpectedPrompt);
    if (prompt.is_string()) {
      prompts.emplace_back(prompt.get<std::string>());
    } else {
      prompts.emplace_back(read_ids(param, prompt, limits.vocab_size));
    }
  }
  return prompts;
}

/// Some clients send booleans: true is 1, false is none. OpenAI's maximum is 5; clients of llama.cpp ask for more.
std::int64_t read_log_probs(Fields& fields) {
  const json* value = fields.find("logprobs");
  if (value == nullptr || *value == false) return -1;
  return *value == true ? 1 : integer_value("logprobs", *value, 0, 20);
}

}  // namespace

CompletionRequest parse_completion(const json& body, const RequestLimits& limits) {
  Fields fields(body);
  CompletionRequest request;
  request.prompts = read_prompts(fields, limits);
  const auto max_tokens = fields.integer("max_tokens", 0, std::numeric_limits<std::int64_t>::max());
  request.generation = read_generation(fields, limits, static_cast<std::int64_t>(request.prompts.size()), max_tokens);
  request.echoes = fields.boolean("echo").value_or(false);
  request.log_probs = request.generation.options.top_log_probs = read_log_probs(fields);
  const auto best_of = fields.integer("best_of", 1, std::numeric_limits<std::int64_t>::max());
  if (best_of && *best_of != request.generation.num_choices) {
    throw ApiError(
        Reason::kUnsupportedValue,
        format("'best_of' is {} and 'n' is {}; all answers are returned, so leave 'best_of' out", *best_of, request.generation.num_choices),
        "best_of");
  }
  fields.refuse("suffix", "is not supported; the models do not fill in the middle");
  settle_unknown_fields(fields, limits.unknown_fields, request.generation.ignored_fields);
  return request;
}

std::vector<std::int32_t> prompt_ids(const Prompt& prompt, const text::Tokenizer& tokenizer, bool adds_special_tokens) {
  std::vector<std::int32_t> ids;
  if (const auto* given = std::get_if<std::vector<std::int32_t>>(&prompt)) {
    ids = *given;
  } else {
    try {
      ids = tokenizer.encode(std::get<std::string>(prompt), {.add_special_tokens = adds_special_tokens});
    } catch (const Error& error) {
      throw ApiError(Reason::kInvalidRequest, error.what(), "prompt");
    }
  }
  if (!ids.empty()) return ids;
  const auto first = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
  if (!first) throw ApiError(Reason::kInvalidRequest, "'prompt' is empty, and the model has no token that begins a text", "prompt");
  return {*first};
}

}  // namespace quiver::api
