#include "quiver/api/completions.h"

#include <limits>

#include "quiver/api/test_support.h"

namespace quiver::api::parse_completion_test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr RequestLimits kLimits = {.vocab_size = 1000, .context_length = 64};

/// A body with further members, given as JSON text without the braces.
json body_with(const std::string& members) {
  auto body = json::parse(R"({"model": "m", "prompt": "hi"})");
  body.update(json::parse("{" + members + "}"));
  return body;
}

CompletionRequest parsed(const std::string& members) { return parse_completion(body_with(members), kLimits); }

std::string refusal(const std::string& members) {
  return refusal_of([&] { parsed(members); });
}

/// What becomes of a body: "ok", or the start of the refusal and a part of its message.
struct Case {
  const char* members;
  const char* expected;
  const char* part = "";
};

// Every field of OpenAI and vLLM: absent (in all other cases), null, right, of a wrong type, out of range, huge.
const Case kCases[] = {
    {R"("model": null)", "400 - model: 'model' is missing"},
    {R"("model": "")", "400 - model: 'model' is missing"},
    {R"("model": 3)", "400 - model: 'model' is the number 3; expected a string"},
    {R"("prompt": null)", "ok"},
    {R"("prompt": "")", "ok"},
    {R"("prompt": [])", "ok"},
    {R"("prompt": ["a", "b"])", "ok"},
    {R"("prompt": [1, 2, 999])", "ok"},
    {R"("prompt": [[1], [2, 3], []])", "ok"},
    {R"("prompt": {})", "400 - prompt: 'prompt' is an object; expected a string, an array of strings"},
    {R"("prompt": true)", "400 - prompt: "},
    {R"("prompt": 3)", "400 - prompt: "},
    {R"("prompt": [null])", "400 - prompt[0]: "},
    {R"("prompt": ["a", 1])", "400 - prompt[1]: 'prompt[1]' is the number 1; expected a string, an array"},
    {R"("prompt": ["a", [1]])", "400 - prompt[1]: "},
    {R"("prompt": [[1], "a"])", "400 - prompt[1]: "},
    {R"("prompt": [1, "a"])", R"(400 - prompt[1]: 'prompt[1]' is the string "a"; expected an integer from 0 to 999)"},
    {R"("prompt": [1, 1000])", "400 - prompt[1]: 'prompt[1]' is the number 1000; expected an integer from 0 to 999"},
    {R"("prompt": [-1])", "400 - prompt[0]: 'prompt[0]' is the number -1"},
    {R"("prompt": [1.5])", "400 - prompt[0]: 'prompt[0]' is the number 1.5"},
    {R"("prompt": [2147483648])", "400 - prompt[0]: "},
    {R"("prompt": [18446744073709551615])", "400 - prompt[0]: "},
    {R"("prompt": [[1], [2, -5]])", "400 - prompt[1][1]: "},
    {R"("prompt": [[[1]]])", "400 - prompt[0][0]: "},
    {R"("echo": null)", "ok"},
    {R"("echo": true)", "ok"},
    {R"("echo": 1)", "400 - echo: 'echo' is the number 1; expected true or false"},
    {R"("logprobs": null)", "ok"},
    {R"("logprobs": 0)", "ok"},
    {R"("logprobs": 20)", "ok"},
    {R"("logprobs": true)", "ok"},
    {R"("logprobs": false)", "ok"},
    {R"("logprobs": 21)", "400 - logprobs: 'logprobs' is the number 21; expected an integer from 0 to 20"},
    {R"("logprobs": -1)", "400 - logprobs: "},
    {R"("logprobs": 1.5)", "400 - logprobs: "},
    {R"("logprobs": "1")", "400 - logprobs: "},
    {R"("max_tokens": null)", "ok"},
    {R"("max_tokens": 0)", "ok"},
    {R"("max_tokens": 7.0)", "ok"},
    {R"("max_tokens": -1)", "400 - max_tokens: 'max_tokens' is the number -1; expected an integer of at least 0"},
    {R"("max_tokens": 1.5)", "400 - max_tokens: "},
    {R"("max_tokens": "16")", "400 - max_tokens: "},
    {R"("max_tokens": 9223372036854775808)", "400 - max_tokens: "},
    {R"("n": null)", "ok"},
    {R"("n": 16)", "ok"},
    {R"("n": 0)", "400 - n: 'n' is the number 0; expected an integer from 1 to 16"},
    {R"("n": 17)", "400 - n: "},
    {R"("n": [1])", "400 - n: 'n' is an array of 1 value"},
    {R"("best_of": null)", "ok"},
    {R"("best_of": 1)", "ok"},
    {R"("best_of": 3, "n": 3)", "ok"},
    {R"("best_of": 2)", "400 unsupported_value best_of: 'best_of' is 2 and 'n' is 1"},
    {R"("best_of": "2")", "400 - best_of: "},
    {R"("stop": null)", "ok"},
    {R"("stop": [])", "ok"},
    {R"("stop": "\n")", "ok"},
    {R"("stop": ["a", "b", "c", "d", "e"])", "ok"},
    {R"("stop": "")", "400 - stop: 'stop' is the string \"\"; expected a string of 1 to 256 bytes"},
    {R"("stop": ["a", ""])", "400 - stop[1]: "},
    {R"("stop": ["a", null])", "400 - stop[1]: 'stop[1]' is null; expected a string"},
    {R"("stop": 3)", "400 - stop: "},
    {R"("stop": {"a": 1})", "400 - stop: "},
    {R"("seed": null)", "ok"},
    {R"("seed": 1234)", "ok"},
    {R"("seed": -9223372036854775808)", "ok"},
    {R"("seed": 9223372036854775807)", "ok"},
    {R"("seed": 9223372036854775808)", "400 - seed: 'seed' is the number 9223372036854775808; expected an integer of 64 bits"},
    {R"("seed": 1e300)", "400 - seed: "},
    {R"("seed": "1")", "400 - seed: "},
    {R"("temperature": null)", "ok"},
    {R"("temperature": 0)", "ok"},
    {R"("temperature": 2)", "ok"},
    {R"("temperature": 2.1)", "400 - temperature: 'temperature' is the number 2.1; expected a number from 0 to 2"},
    {R"("temperature": -0.1)", "400 - temperature: "},
    {R"("temperature": "hot")", R"(400 - temperature: 'temperature' is the string "hot"; expected a number from 0 to 2)"},
    {R"("top_p": null)", "ok"},
    {R"("top_p": 1)", "ok"},
    {R"("top_p": 1e-9)", "ok"},
    {R"("top_p": 0)", "400 - top_p: 'top_p' is the number 0; expected a number above 0, at most 1"},
    {R"("top_p": 1.01)", "400 - top_p: "},
    {R"("top_k": null)", "ok"},
    {R"("top_k": -1)", "ok"},
    {R"("top_k": 40)", "ok"},
    {R"("top_k": -2)", "400 - top_k: "},
    {R"("top_k": 1.5)", "400 - top_k: "},
    {R"("min_p": 0.1)", "ok"},
    {R"("min_p": 1.1)", "400 - min_p: "},
    {R"("repetition_penalty": 1.2)", "ok"},
    {R"("repetition_penalty": 0)", "400 - repetition_penalty: "},
    {R"("repetition_penalty": 101)", "400 - repetition_penalty: "},
    {R"("frequency_penalty": -2)", "ok"},
    {R"("frequency_penalty": -2.1)", "400 - frequency_penalty: "},
    {R"("presence_penalty": 2)", "ok"},
    {R"("presence_penalty": 2.1)", "400 - presence_penalty: "},
    {R"("presence_penalty": [])", "400 - presence_penalty: "},
    {R"("logit_bias": null)", "ok"},
    {R"("logit_bias": {})", "ok"},
    {R"("logit_bias": {"5": -100, "0": 100.0})", "ok"},
    {R"("logit_bias": {"5": 101})", "400 - logit_bias.5: 'logit_bias.5' is the number 101; expected a number from -100 to 100"},
    {R"("logit_bias": {"5": null})", "400 - logit_bias.5: "},
    {R"("logit_bias": {"1000": 1})", "400 - logit_bias: 'logit_bias' has the key '1000'; expected token ids as strings, \"0\" to \"999\""},
    {R"("logit_bias": {"a": 1})", "400 - logit_bias: "},
    {R"("logit_bias": {"": 1})", "400 - logit_bias: "},
    {R"("logit_bias": {"-1": 1})", "400 - logit_bias: "},
    {R"("logit_bias": {"99999999999999999999": 1})", "400 - logit_bias: "},
    {R"("logit_bias": {"7": 1, "07": 1})", "400 - logit_bias: 'logit_bias' names the token 7 twice"},
    {R"("logit_bias": [1])", "400 - logit_bias: 'logit_bias' is an array of 1 value; expected an object"},
    {R"("stream": null)", "ok"},
    {R"("stream": true)", "ok"},
    {R"("stream": "true")", "400 - stream: "},
    {R"("stream_options": null)", "ok"},
    {R"("stream": true, "stream_options": {})", "ok"},
    {R"("stream": true, "stream_options": {"include_usage": null})", "ok"},
    {R"("stream": true, "stream_options": {"include_usage": 1})", "400 - stream_options.include_usage: "},
    {R"("stream": true, "stream_options": true)", "400 - stream_options: "},
    {R"("stream_options": {"include_usage": true})", "400 - stream_options: 'stream_options' is only allowed when 'stream' is true"},
    {R"("suffix": null)", "ok"},
    {R"("suffix": "")", "ok"},
    {R"("suffix": "end")", "400 unsupported_value suffix: 'suffix' is not supported"},
    {R"("ignore_eos": true)", "ok"},
    {R"("ignore_eos": 0)", "400 - ignore_eos: "},
    {R"("min_tokens": 3)", "ok"},
    {R"("min_tokens": 3, "max_tokens": 2)", "400 - min_tokens: 'min_tokens' is 3, above the 2 tokens"},
    {R"("min_tokens": -1)", "400 - min_tokens: "},
    {R"("stop_token_ids": null)", "ok"},
    {R"("stop_token_ids": [])", "ok"},
    {R"("stop_token_ids": [0, 999])", "ok"},
    {R"("stop_token_ids": [1000])", "400 - stop_token_ids[0]: "},
    {R"("stop_token_ids": 5)", "400 - stop_token_ids: "},
    {R"("skip_special_tokens": false)", "ok"},
    {R"("skip_special_tokens": "no")", "400 - skip_special_tokens: "},
    {R"("add_special_tokens": true)", "ok"},
    {R"("add_special_tokens": 2)", "400 - add_special_tokens: "},
    {R"("return_token_ids": true)", "ok"},
    {R"("return_token_ids": "x")", "400 - return_token_ids: "},
    {R"("cache_salt": "tenant")", "ok"},
    {R"("cache_salt": 5)", "400 - cache_salt: "},
    {R"("prompt_logprobs": null)", "ok"},
    {R"("prompt_logprobs": 0)", "400 unsupported_value prompt_logprobs: 'prompt_logprobs' is not supported; use 'echo'"},
    {R"("use_beam_search": false)", "ok"},
    {R"("use_beam_search": true)", "400 unsupported_value use_beam_search: "},
    {R"("response_format": null)", "ok"},
    {R"("response_format": {"type": "text"})", "ok"},
    {R"("response_format": {"type": "json_object"})", "400 unsupported_value response_format: "},
    {R"("response_format": {})", "400 unsupported_value response_format: "},
    {R"("response_format": "text")", "400 - response_format: "},
    {R"("structured_outputs": {"json": {}})", "400 unsupported_value structured_outputs: "},
    {R"("guided_json": {"a": 1})", "400 unsupported_value guided_json: "},
    {R"("truncate_prompt_tokens": 5)", "400 unsupported_value truncate_prompt_tokens: "},
    {R"("priority": 0)", "ok"},
    {R"("priority": 1)", "400 unsupported_value priority: "},
    {R"("user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "safety_identifier": "s")", "ok"},
    {R"("prompt_cache_key": "k", "prompt_cache_retention": "24h")", "ok"},
    {R"("quiver": null)", "ok"},
    {R"("quiver": {})", "ok"},
    {R"("quiver": 1)", "400 - quiver: 'quiver' is the number 1; expected an object"},
    {R"("quiver": {"top_k": 0})", "400 - quiver.top_k: "},
    {R"("quiver": {"temperature": 0})", "400 - quiver.temperature: 'quiver.temperature' is the number 0; expected a number above 0"},
    {R"("quiver": {"adapters": []})", "400 - quiver.adapters: "},
    {R"("quiver": {"adapters": ["a", ""]})", "400 - quiver.adapters[1]: "},
    {R"("quiver": {"adapters": ["a", "a"]})", "400 - quiver.adapters[1]: "},
    {R"("quiver": {"weights": {}})", "400 - quiver.weights: "},
    {R"("quiver": {"weights": {"a": "1"}})", "400 - quiver.weights.a: "},
    {R"("quiver": {"weights": {"a": 1}, "top_k": 2})", "400 - quiver.weights: "},
    {R"("quiver": {"trace": "some"})", "400 - quiver.trace: "},
    {R"("quiver": {"trace": 1})", "400 - quiver.trace: "},
    {R"("quiver": {"context_tokens": -1})", "400 - quiver.context_tokens: "},
    {R"("quiver": {"context_tokens": [1, 2]})", "400 - quiver.context_tokens: ", "an integer for each of 1 prompts"},
    {R"("quiver": {"unknown": 1})", "400 - quiver.unknown: 'quiver.unknown' is unknown; the object has top_k, temperature, adapters"},
    {R"("max_gen_toks": 5, "who": {"knows": 1})", "ok"},
};

TEST(ParseCompletion, SettlesEveryField) {
  for (const auto& [members, expected, part] : kCases) {
    EXPECT_THAT(refusal(members), AllOf(::testing::StartsWith(expected), HasSubstr(part))) << members;
  }
}

TEST(ParseCompletion, TakesTheDefaultsOfOpenAi) {
  const auto request = parsed("");
  EXPECT_THAT(request.prompts, ElementsAre(Prompt("hi")));
  EXPECT_FALSE(request.echoes);
  EXPECT_EQ(request.log_probs, -1);
  const auto& generation = request.generation;
  EXPECT_EQ(generation.model, "m");
  EXPECT_EQ(generation.max_tokens, std::nullopt);
  EXPECT_EQ(generation.seed, std::nullopt);
  EXPECT_EQ(generation.num_choices, 1);
  EXPECT_THAT(generation.stops, IsEmpty());
  EXPECT_FALSE(generation.is_stream || generation.includes_usage || generation.returns_token_ids || generation.ignores_eos ||
               generation.adds_special_tokens);
  EXPECT_TRUE(generation.skips_special_tokens);
  EXPECT_THAT(generation.ignored_fields, IsEmpty());
  EXPECT_EQ(generation.quiver_options.trace, Trace::kNone);
  const auto& options = generation.options;
  EXPECT_EQ(options.sampler.temperature, 1);
  EXPECT_EQ(options.sampler.top_p, 1);
  EXPECT_EQ(options.sampler.top_k, 0);
  EXPECT_EQ(options.sampler.min_p, 0);
  EXPECT_EQ(options.sampler.repetition_penalty, 1);
  EXPECT_EQ(options.min_new_tokens, 0);
  EXPECT_EQ(options.top_log_probs, -1);
}

TEST(ParseCompletion, NullIsAbsentEverywhere) {
  const auto request = parsed(
      R"("echo": null, "logprobs": null, "max_tokens": null, "n": null, "best_of": null, "stop": null, "seed": null, "temperature": null,
         "top_p": null, "top_k": null, "min_p": null, "repetition_penalty": null, "frequency_penalty": null, "presence_penalty": null,
         "logit_bias": null, "stream": null, "stream_options": null, "suffix": null, "user": null, "metadata": null, "ignore_eos": null,
         "min_tokens": null, "stop_token_ids": null, "skip_special_tokens": null, "add_special_tokens": null, "return_token_ids": null,
         "cache_salt": null, "prompt_logprobs": null, "use_beam_search": null, "response_format": null, "structured_outputs": null,
         "truncate_prompt_tokens": null, "priority": null,
         "quiver": {"top_k": null, "temperature": null, "adapters": null, "weights": null, "trace": null, "context_tokens": null})");
  EXPECT_EQ(request.generation.options.sampler.temperature, 1);
  EXPECT_TRUE(request.generation.skips_special_tokens);
  EXPECT_THAT(request.generation.ignored_fields, IsEmpty());
}

TEST(ParseCompletion, ReadsEveryValue) {
  const auto request = parsed(
      R"("prompt": [[1, 2], [3]], "echo": true, "logprobs": 3, "max_tokens": 0, "n": 2, "stop": ["x", "\n"], "seed": -7, "temperature": 0,
         "top_p": 0.5, "top_k": 40, "min_p": 0.25, "repetition_penalty": 1.5, "frequency_penalty": 0.5, "presence_penalty": -0.5,
         "logit_bias": {"7": 1.5, "3": -100}, "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
         "stop_token_ids": [5, 4], "skip_special_tokens": false, "add_special_tokens": true, "return_token_ids": true, "cache_salt": "s",
         "quiver": {"top_k": 4, "temperature": 0.5, "adapters": ["b", "a"], "trace": "full", "context_tokens": [1, 0]})");
  EXPECT_THAT(request.prompts, ElementsAre(Prompt(std::vector<std::int32_t>{1, 2}), Prompt(std::vector<std::int32_t>{3})));
  EXPECT_TRUE(request.echoes);
  EXPECT_EQ(request.log_probs, 3);
  const auto& generation = request.generation;
  EXPECT_EQ(generation.max_tokens, 0);
  EXPECT_EQ(generation.num_choices, 2);
  EXPECT_THAT(generation.stops, ElementsAre("x", "\n"));
  EXPECT_EQ(generation.seed, -7);
  EXPECT_TRUE(generation.is_stream && generation.includes_usage && generation.ignores_eos && generation.returns_token_ids &&
              generation.adds_special_tokens);
  EXPECT_FALSE(generation.skips_special_tokens);
  EXPECT_EQ(generation.cache_salt, "s");
  const auto& sampler = generation.options.sampler;
  EXPECT_EQ(sampler.temperature, 0);
  EXPECT_EQ(sampler.top_p, 0.5);
  EXPECT_EQ(sampler.top_k, 40);
  EXPECT_EQ(sampler.min_p, 0.25);
  EXPECT_EQ(sampler.repetition_penalty, 1.5);
  EXPECT_EQ(sampler.frequency_penalty, 0.5);
  EXPECT_EQ(sampler.presence_penalty, -0.5);
  EXPECT_THAT(sampler.logit_bias, ElementsAre(std::pair(3, -100.0F), std::pair(7, 1.5F)));
  EXPECT_THAT(generation.options.stop_ids, ElementsAre(5, 4));
  EXPECT_EQ(generation.options.top_log_probs, 3);
  const auto& own = generation.quiver_options;
  EXPECT_EQ(own.top_k, 4);
  EXPECT_EQ(own.temperature, 0.5);
  EXPECT_EQ(own.adapters, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(own.trace, Trace::kFull);
  EXPECT_THAT(own.context_tokens, ElementsAre(1, 0));
  EXPECT_THAT(parsed(R"("quiver": {"weights": {"b": -0.5, "a": 2}, "trace": true})").generation.quiver_options.weights,
              ElementsAre(std::pair("a", 2.0), std::pair("b", -0.5)));
  EXPECT_EQ(parsed(R"("quiver": {"trace": true})").generation.quiver_options.trace, Trace::kLayers);
  EXPECT_EQ(parsed(R"("logprobs": true)").log_probs, 1);
  EXPECT_EQ(parsed(R"("logprobs": false)").log_probs, -1);
}

TEST(ParseCompletion, ReadsEmptyPrompts) {
  for (const char* prompt : {"null", "\"\"", "[]", "[\"\"]"}) {
    EXPECT_THAT(parsed(format("\"prompt\": {}", prompt)).prompts, ElementsAre(Prompt(""))) << prompt;
  }
  EXPECT_THAT(parsed(R"("prompt": [[], []])").prompts,
              ElementsAre(Prompt(std::vector<std::int32_t>()), Prompt(std::vector<std::int32_t>())));
  EXPECT_THAT(parse_completion(json::parse(R"({"model": "m"})"), kLimits).prompts, ElementsAre(Prompt("")));
}

TEST(ParseCompletion, LimitsWhatIsHuge) {
  auto body = body_with("");
  body["prompt"] = std::vector<std::string>(256);
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }), "ok");
  body["prompt"] = std::vector<std::string>(100'000);
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }),
            "400 - prompt: 'prompt' is an array of 100000 values; expected at most 256 prompts");
  body = body_with("");
  body["stop"] = std::vector<std::string>(32, "x");
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }), "ok");
  body["stop"] = std::vector<std::string>(33, "x");
  EXPECT_THAT(refusal_of([&] { parse_completion(body, kLimits); }), HasSubstr("400 - stop: 'stop' is an array of 33 values"));
  body["stop"] = std::string(256, 'x');
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }), "ok");
  body["stop"] = std::string(4 << 20, 'x');
  const auto message = refusal_of([&] { parse_completion(body, kLimits); });
  EXPECT_THAT(message, HasSubstr("expected a string of 1 to 256 bytes"));
  EXPECT_LT(message.size(), 300);
  body = body_with("");
  for (int id = 0; id < 300; ++id) body["logit_bias"][std::to_string(id)] = 1;
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }), "ok");
  body["logit_bias"]["300"] = 1;
  EXPECT_EQ(refusal_of([&] { parse_completion(body, kLimits); }),
            "400 - logit_bias: 'logit_bias' has 301 members; at most 300 are allowed");
}

TEST(ParseCompletion, SaysWhatHasNoEffect) {
  const auto request = parsed(R"("user": "u", "zebra": 1, "apple": [2], "stream": true, "stream_options": {"include_obfuscation": false})");
  EXPECT_THAT(request.generation.ignored_fields, ElementsAre("stream_options.include_obfuscation", "user", "apple", "zebra"));
  EXPECT_EQ(ignored_header(request.generation.ignored_fields), "stream_options.include_obfuscation,user,apple,zebra");
  auto strict = kLimits;
  strict.unknown_fields = UnknownFields::kRefuse;
  EXPECT_EQ(refusal_of([&] { parse_completion(body_with(R"("user": "u")"), strict); }), "ok");
  EXPECT_EQ(refusal_of([&] { parse_completion(body_with(R"("max_gen_toks": 3)"), strict); }),
            "400 - max_gen_toks: unrecognized request argument supplied: max_gen_toks");
}

TEST(IgnoredHeader, HoldsNothingThatAHeaderCannotHold) {
  EXPECT_EQ(ignored_header({}), "");
  EXPECT_EQ(ignored_header({"a\r\nSet-Cookie: x", "b,c", "\u00e9", "", std::string(65, 'a'), "ok"}),
            "(unprintable),(unprintable),(unprintable),(unprintable),(unprintable),ok");
  EXPECT_EQ(ignored_header(std::vector<std::string>(23, "x")), "x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,(3 more)");
}

TEST(PromptIds, TakesIdsAsTheyAreAndEncodesTexts) {
  const auto tokenizer = golden_tokenizer("llama3");
  const auto encoded = tokenizer.encode("Hello world");
  EXPECT_EQ(prompt_ids("Hello world", tokenizer, /*adds_special_tokens=*/false), encoded);
  EXPECT_EQ(prompt_ids("Hello world", tokenizer, /*adds_special_tokens=*/true),
            tokenizer.encode("Hello world", {.add_special_tokens = true}));
  EXPECT_EQ(prompt_ids(encoded, tokenizer, /*adds_special_tokens=*/true), encoded);
}

TEST(PromptIds, OfAnEmptyPromptAreBosElseEos) {
  const auto tokenizer = golden_tokenizer("llama3");
  EXPECT_EQ(prompt_ids("", tokenizer.with_special_ids(3, {4}, {}), false), std::vector<std::int32_t>{3});
  EXPECT_EQ(prompt_ids(std::vector<std::int32_t>(), tokenizer.with_special_ids({}, {4}, {}), false), std::vector<std::int32_t>{4});
  EXPECT_EQ(refusal_of([&] { prompt_ids("", tokenizer.with_special_ids({}, {}, {}), false); }),
            "400 - prompt: 'prompt' is empty, and the model has no token that begins a text");
}

TEST(PromptIds, RefusesATokenThatTheModelHasNoRowFor) {
  const auto tokenizer = golden_tokenizer("llama3").with_special_ids({}, {}, {}).with_model_rows(10);
  EXPECT_THAT(refusal_of([&] { prompt_ids("Hello world", tokenizer, false); }), HasSubstr("400 - prompt: the text has the token"));
}

TEST(AnswerLength, KeepsWithinTheContext) {
  auto generation = parsed(R"("max_tokens": 4)").generation;
  EXPECT_EQ(answer_length(generation, 60, kDefaultCompletionTokens, 64), 4);  // they may fill it
  EXPECT_THAT(refusal_of([&] { answer_length(generation, 61, kDefaultCompletionTokens, 64); }),
              AllOf(HasSubstr("400 context_length_exceeded"), HasSubstr("maximum context length is 64 tokens, but 65 were requested")));
  generation.max_tokens = 0;
  EXPECT_EQ(answer_length(generation, 64, kDefaultCompletionTokens, 64), 0);
  generation.max_tokens = std::numeric_limits<std::int64_t>::max();
  EXPECT_THAT(refusal_of([&] { answer_length(generation, 1, kDefaultCompletionTokens, 64); }),
              HasSubstr("9223372036854775807 were requested: 1 of the prompt and 9223372036854775807 of the answer"));  // no overflow
  generation.max_tokens.reset();
  EXPECT_EQ(answer_length(generation, 10, kDefaultCompletionTokens, 64), 16);
  EXPECT_EQ(answer_length(generation, 60, kDefaultCompletionTokens, 64), 4);
  EXPECT_THAT(refusal_of([&] { answer_length(generation, 64, kDefaultCompletionTokens, 64); }), HasSubstr("context_length_exceeded"));
}

TEST(ChoiceOptions, NameAStreamOfRandomNumbersForEveryChoice) {
  auto generation = parsed(R"("seed": 5, "min_tokens": 3)").generation;
  const auto options = choice_options(generation, 7, /*drawn_seed=*/99, /*prompt_index=*/2, /*choice_index=*/1);
  EXPECT_EQ(options.max_new_tokens, 7);
  EXPECT_EQ(options.min_new_tokens, 3);
  EXPECT_EQ(options.sampler.seed, 5U);
  EXPECT_EQ(options.sampler.stream, "serve/prompt 2/choice 1");
  generation.seed.reset();
  EXPECT_EQ(choice_options(generation, 7, 99, 0, 0).sampler.seed, 99U);
}

TEST(SettleStops, MakesSpecialTokensStopIds) {
  const auto tokenizer = golden_tokenizer("llama3");
  std::int32_t special = 0;
  while (special < tokenizer.vocab_size() && !tokenizer.is_special(special)) ++special;
  ASSERT_LT(special, tokenizer.vocab_size());
  const auto settled = tokenizer.with_special_ids({}, {7, 9}, {});
  Generation generation{.stops = {*tokenizer.token(special), "\n"}};
  generation.options.stop_ids = {9};
  settle_stops(generation, settled);
  EXPECT_THAT(generation.options.stop_ids, ::testing::UnorderedElementsAre(7, 9, special));
  generation = {.stops = {"\n"}, .ignores_eos = true};
  settle_stops(generation, settled);
  EXPECT_THAT(generation.options.stop_ids, IsEmpty());
}

}  // namespace
}  // namespace quiver::api::parse_completion_test
