#include "quiver/api/generation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "quiver/base/error.h"

namespace quiver::api {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostStops = 32;
constexpr std::size_t kMostStopBytes = 256;
constexpr std::int64_t kMostBiases = 300;
constexpr std::int64_t kMostStopIds = 256;
constexpr std::int64_t kMostAdapters = 1024;
constexpr std::size_t kMostNameBytes = 256;
constexpr std::int64_t kMostInt = std::numeric_limits<std::int64_t>::max();
constexpr double kMostDouble = std::numeric_limits<double>::max();

/// A number above zero.
std::optional<double> positive(Fields& fields, const char* name, double high) {
  const json* value = fields.find(name);
  if (value == nullptr) return std::nullopt;
  const bool is_positive = value->is_number() && value->get<double>() > 0 && value->get<double>() <= high;
  if (!is_positive)
    fail_field(fields.param(name), *value, high < kMostDouble ? format("a number above 0, at most {}", high) : "a number above 0");
  return value->get<double>();
}

std::vector<std::pair<std::int32_t, float>> read_biases(Fields& fields, std::int64_t vocab_size) {
  std::vector<std::pair<std::int32_t, float>> biases;
  const json* object = fields.object("logit_bias");
  if (object == nullptr) return biases;
  if (static_cast<std::int64_t>(object->size()) > kMostBiases) {
    throw ApiError(Reason::kInvalidRequest, format("'logit_bias' has {} members; at most {} are allowed", object->size(), kMostBiases),
                   "logit_bias");
  }
  for (const auto& [key, value] : object->items()) {
    const bool is_number = !key.empty() && key.size() <= 9 && std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
    const std::int64_t id = is_number ? std::stoll(key) : -1;
    if (id < 0 || id >= vocab_size) {
      throw ApiError(Reason::kInvalidRequest,
                     format("'logit_bias' has the key '{}'; expected token ids as strings, \"0\" to \"{}\"", clipped(key), vocab_size - 1),
                     "logit_bias");
    }
    const auto bias = number_value("logit_bias." + key, value, -100, 100);
    biases.emplace_back(static_cast<std::int32_t>(id), static_cast<float>(bias));
  }
  std::ranges::sort(biases);
  const auto same = std::ranges::adjacent_find(biases, {}, &std::pair<std::int32_t, float>::first);  // "7" and "07"
  if (same != biases.end()) {
    throw ApiError(Reason::kInvalidRequest, format("'logit_bias' names the token {} twice", same->first), "logit_bias");
  }
  return biases;
}

schedule::SamplerOptions read_sampler(Fields& fields, std::int64_t vocab_size) {
  schedule::SamplerOptions options;
  options.temperature = fields.number("temperature", 0, 2).value_or(1);
  options.top_p = positive(fields, "top_p", 1).value_or(1);
  options.top_k = std::max<std::int64_t>(fields.integer("top_k", -1, kMostInt).value_or(0), 0);  // vLLM's -1 is all, too
  options.min_p = fields.number("min_p", 0, 1).value_or(0);
  options.repetition_penalty = positive(fields, "repetition_penalty", 100).value_or(1);
  options.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  options.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  options.logit_bias = read_biases(fields, vocab_size);
  return options;
}

std::string stop_string(const std::string& param, const json& value) {
  auto stop = text_value(param, value);
  if (stop.empty() || stop.size() > kMostStopBytes) fail_field(param, value, format("a string of 1 to {} bytes", kMostStopBytes));
  return stop;
}

std::vector<std::string> read_stops(Fields& fields) {
  const json* value = fields.find("stop");
  if (value == nullptr) return {};
  if (value->is_string()) return {stop_string("stop", *value)};
  if (!value->is_array() || static_cast<std::int64_t>(value->size()) > kMostStops) {
    fail_field("stop", *value, format("a string or an array of at most {} strings", kMostStops));
  }
  std::vector<std::string> stops;
  for (const auto& stop : *value) stops.push_back(stop_string(format("stop[{}]", stops.size()), stop));
  return stops;
}

std::vector<std::int32_t> read_stop_ids(Fields& fields, std::int64_t vocab_size) {
  std::vector<std::int32_t> ids;
  const json* list = fields.array("stop_token_ids");
  if (list == nullptr) return ids;
  if (static_cast<std::int64_t>(list->size()) > kMostStopIds) {
    fail_field("stop_token_ids", *list, format("an array of at most {} token ids", kMostStopIds));
  }
  for (const auto& id : *list) {
    ids.push_back(static_cast<std::int32_t>(integer_value(format("stop_token_ids[{}]", ids.size()), id, 0, vocab_size - 1)));
  }
  return ids;
}

void read_stream(Fields& fields, Generation& generation) {
  generation.is_stream = fields.boolean("stream").value_or(false);
  const json* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!generation.is_stream) {
    throw ApiError(Reason::kInvalidRequest, "'stream_options' is only allowed when 'stream' is true", "stream_options");
  }
  Fields members(*options, "stream_options.");
  generation.includes_usage = members.boolean("include_usage").value_or(false);
  members.ignore("include_obfuscation");
  for (auto& name : members.ignored()) generation.ignored_fields.push_back(std::move(name));
}

std::string adapter_name(const std::string& param, const json& value) {
  auto name = text_value(param, value);
  if (name.empty() || name.size() > kMostNameBytes) fail_field(param, value, "the name of an adapter");
  return name;
}

Trace read_trace(Fields& members) {
  const json* value = members.find("trace");
  if (value == nullptr || *value == false) return Trace::kNone;
  if (*value == true || *value == "layers") return Trace::kLayers;
  if (*value == "full") return Trace::kFull;
  fail_field(members.param("trace"), *value, "true, false, \"layers\" or \"full\"");
}

std::vector<std::int64_t> read_context_tokens(Fields& members, std::int64_t num_prompts) {
  const json* value = members.find("context_tokens");
  const auto param = members.param("context_tokens");
  if (value == nullptr) return {};
  if (!value->is_array()) return {integer_value(param, *value, 0, kMostInt)};
  if (static_cast<std::int64_t>(value->size()) != num_prompts) {
    fail_field(param, *value, format("an integer, or an integer for each of {} prompts", num_prompts));
  }
  std::vector<std::int64_t> counts;
  for (const auto& count : *value) counts.push_back(integer_value(format("{}[{}]", param, counts.size()), count, 0, kMostInt));
  return counts;
}

QuiverOptions read_quiver_options(Fields& fields, std::int64_t num_prompts) {
  QuiverOptions options;
  const json* object = fields.object("quiver");
  if (object == nullptr) return options;
  Fields members(*object, "quiver.");
  options.top_k = members.integer("top_k", 1, kMostInt);
  options.temperature = positive(members, "temperature", kMostDouble);
  if (const json* list = members.array("adapters")) {
    if (list->empty() || static_cast<std::int64_t>(list->size()) > kMostAdapters) {
      fail_field(members.param("adapters"), *list, format("1 to {} names of adapters", kMostAdapters));
    }
    options.adapters.emplace();
    std::set<std::string> seen;
    for (const auto& name : *list) {
      const auto param = format("quiver.adapters[{}]", options.adapters->size());
      options.adapters->push_back(adapter_name(param, name));
      if (!seen.insert(options.adapters->back()).second) fail_field(param, name, "each adapter once");
    }
  }
  if (const json* weights = members.object("weights")) {
    if (weights->empty() || static_cast<std::int64_t>(weights->size()) > kMostAdapters) {
      fail_field(members.param("weights"), *weights, format("weights of 1 to {} adapters, by name", kMostAdapters));
    }
    for (const auto& [name, weight] : weights->items()) {
      options.weights.emplace_back(adapter_name("quiver.weights", name),
                                   number_value("quiver.weights." + clipped(name), weight, -1e4, 1e4));
    }
  }
  if (!options.weights.empty() && (options.adapters || options.top_k || options.temperature)) {
    throw ApiError(
        Reason::kInvalidRequest,
        "'quiver.weights' is a mixture without a router; 'quiver.adapters', 'quiver.top_k' and 'quiver.temperature' do not go with it",
        "quiver.weights");
  }
  options.trace = read_trace(members);
  options.context_tokens = read_context_tokens(members, num_prompts);
  if (const auto unknown = members.unknown(); !unknown.empty()) {
    throw ApiError(
        Reason::kInvalidRequest,
        format("'{}' is unknown; the object has top_k, temperature, adapters, weights, trace and context_tokens", clipped(unknown.front())),
        clipped(unknown.front()));
  }
  return options;
}

void refuse_response_format(Fields& fields) {
  const json* value = fields.object("response_format");
  if (value == nullptr) return;
  const auto type = value->find("type");
  if (type != value->end() && *type == "text") return;
  throw ApiError(Reason::kUnsupportedValue,
                 "'response_format' has a type other than \"text\"; answers are not constrained to JSON or to a schema", "response_format");
}

/// Fields of OpenAI and vLLM that would change the answer.
void refuse_fields(Fields& fields) {
  refuse_response_format(fields);
  fields.refuse("prompt_logprobs", "is not supported; use 'echo' with 'logprobs' of /v1/completions");
  fields.refuse("use_beam_search", "is not supported; answers are greedy or sampled");
  fields.refuse("truncate_prompt_tokens", "is not supported; prompts are never cut, so send a shorter one");
  if (const json* priority = fields.find("priority"); priority != nullptr && *priority != 0) {
    throw ApiError(Reason::kUnsupportedValue, "'priority' is not supported; clients share the server fairly", "priority");
  }
  for (const char* name : {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    fields.refuse(name, "is not supported; answers are not constrained to a grammar");
  }
}

}  // namespace

Generation read_generation(Fields& fields, const RequestLimits& limits, std::int64_t num_prompts, std::optional<std::int64_t> max_tokens) {
  Generation generation;
  const auto model = fields.text("model");
  if (!model || model->empty()) {
    throw ApiError(Reason::kInvalidRequest, "'model' is missing; expected a name of GET /v1/models", "model");
  }
  generation.model = *model;
  generation.max_tokens = max_tokens;
  generation.options.sampler = read_sampler(fields, limits.vocab_size);
  generation.options.min_new_tokens = fields.integer("min_tokens", 0, kMostInt).value_or(0);
  if (max_tokens && generation.options.min_new_tokens > *max_tokens) {
    throw ApiError(
        Reason::kInvalidRequest,
        format("'min_tokens' is {}, above the {} tokens that the answer may have", generation.options.min_new_tokens, *max_tokens),
        "min_tokens");
  }
  generation.options.stop_ids = read_stop_ids(fields, limits.vocab_size);
  generation.seed = fields.integer("seed", std::numeric_limits<std::int64_t>::min(), kMostInt);
  generation.num_choices = fields.integer("n", 1, limits.max_choices).value_or(1);
  generation.stops = read_stops(fields);
  read_stream(fields, generation);
  generation.returns_token_ids = fields.boolean("return_token_ids").value_or(false);
  generation.skips_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  generation.adds_special_tokens = fields.boolean("add_special_tokens").value_or(false);
  generation.ignores_eos = fields.boolean("ignore_eos").value_or(false);
  generation.cache_salt = fields.text("cache_salt").value_or("");
  generation.quiver_options = read_quiver_options(fields, num_prompts);
  refuse_fields(fields);
  for (const char* name :
       {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}) {
    fields.ignore(name);
  }
  return generation;
}

void settle_unknown_fields(const Fields& fields, UnknownFields rule, std::vector<std::string>& ignored_fields) {
  const auto unknown = fields.unknown();
  if (rule == UnknownFields::kRefuse && !unknown.empty()) {
    const auto name = clipped(unknown.front());
    throw ApiError(Reason::kInvalidRequest, format("unrecognized request argument supplied: {}", name), name);
  }
  for (auto& name : fields.ignored()) ignored_fields.push_back(std::move(name));
}

void settle_stops(Generation& generation, const text::Tokenizer& tokenizer) {
  auto& ids = generation.options.stop_ids;
  for (const auto& stop : generation.stops) {
    const auto id = tokenizer.token_id(stop);
    if (id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  if (!generation.ignores_eos) ids.insert(ids.end(), tokenizer.eos_ids().begin(), tokenizer.eos_ids().end());
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

std::int64_t answer_length(const Generation& generation, std::int64_t num_prompt_tokens, std::int64_t default_tokens,
                           std::int64_t context_length) {
  const auto room = context_length - num_prompt_tokens;
  if (generation.max_tokens) {
    if (*generation.max_tokens > room) throw context_exceeded(num_prompt_tokens, *generation.max_tokens, context_length);
    return *generation.max_tokens;
  }
  if (room < 1) throw context_exceeded(num_prompt_tokens, 1, context_length);
  return std::min(room, default_tokens);
}

schedule::RequestOptions choice_options(const Generation& generation, std::int64_t max_new_tokens, std::int64_t drawn_seed,
                                        std::int64_t prompt_index, std::int64_t choice_index) {
  auto options = generation.options;
  options.max_new_tokens = max_new_tokens;
  options.min_new_tokens = std::min(options.min_new_tokens, max_new_tokens);
  options.sampler.seed = static_cast<std::uint64_t>(generation.seed.value_or(drawn_seed));
  options.sampler.stream = format("serve/prompt {}/choice {}", prompt_index, choice_index);
  return options;
}

std::string ignored_header(const std::vector<std::string>& ignored_fields) {
  constexpr std::size_t kMostNames = 20, kMostBytes = 64;
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  };
  std::string out;
  for (std::size_t i = 0; i < std::min(ignored_fields.size(), kMostNames); ++i) {
    const auto& name = ignored_fields[i];
    if (i > 0) out += ',';
    out += !name.empty() && name.size() <= kMostBytes && std::ranges::all_of(name, is_plain) ? name : "(unprintable)";
  }
  if (ignored_fields.size() > kMostNames) out += format(",({} more)", ignored_fields.size() - kMostNames);
  return out;
}

}  // namespace quiver::api
