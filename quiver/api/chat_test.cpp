#include "quiver/api/chat.h"

#include "quiver/api/test_support.h"

namespace quiver::api::parse_chat_test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr RequestLimits kLimits = {.vocab_size = 1000, .context_length = 64};

json body_with(const std::string& members) {
  auto body = json::parse(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}]})");
  body.update(json::parse("{" + members + "}"));
  return body;
}

ChatRequest parsed(const std::string& members) { return parse_chat(body_with(members), kLimits); }

std::string refusal(const std::string& members) {
  return refusal_of([&] { parsed(members); });
}

std::string refusal_of_messages(const std::string& messages) { return refusal("\"messages\": " + messages); }

/// "role: content" of each message.
std::vector<std::string> messages_of(const std::string& messages) {
  std::vector<std::string> texts;
  for (const auto& [role, content] : parsed("\"messages\": " + messages).messages) texts.push_back(role + ": " + content);
  return texts;
}

struct Case {
  const char* members;
  const char* expected;
};

// The fields that completions do not have; completions_test.cpp has the others.
const Case kCases[] = {
    {R"("messages": null)", "400 - messages: 'messages' is missing"},
    {R"("messages": [])", "400 - messages: 'messages' is an array of 0 values; expected an array of 1 to 4096 messages"},
    {R"("messages": "hi")", "400 - messages: 'messages' is the string \"hi\"; expected an array"},
    {R"("model": null)", "400 - model: "},
    {R"("max_tokens": 5, "max_completion_tokens": 5)", "ok"},
    {R"("max_tokens": null, "max_completion_tokens": 5)", "ok"},
    {R"("max_tokens": 4, "max_completion_tokens": 5)", "400 - max_tokens: 'max_completion_tokens' is 5 and 'max_tokens' is 4"},
    {R"("max_completion_tokens": -1)", "400 - max_completion_tokens: "},
    {R"("max_completion_tokens": "5")", "400 - max_completion_tokens: "},
    {R"("min_tokens": 6, "max_completion_tokens": 5)", "400 - min_tokens: "},
    {R"("logprobs": null)", "ok"},
    {R"("logprobs": true)", "ok"},
    {R"("logprobs": 1)", "400 - logprobs: 'logprobs' is the number 1; expected true or false"},
    {R"("logprobs": true, "top_logprobs": 20)", "ok"},
    {R"("logprobs": true, "top_logprobs": 21)", "400 - top_logprobs: "},
    {R"("logprobs": true, "top_logprobs": true)", "400 - top_logprobs: "},
    {R"("top_logprobs": null)", "ok"},
    {R"("top_logprobs": 0)", "ok"},
    {R"("top_logprobs": 2)", "400 - top_logprobs: 'top_logprobs' is only allowed when 'logprobs' is true"},
    {R"("logprobs": false, "top_logprobs": 2)", "400 - top_logprobs: "},
    {R"("tools": null)", "ok"},
    {R"("tools": [])", "ok"},
    {R"("tools": [{"type": "function"}])", "400 unsupported_value tools: 'tools' is not supported; the models call no tools"},
    {R"("functions": [{"name": "f"}])", "400 unsupported_value functions: "},
    {R"("tool_choice": "none")", "ok"},
    {R"("tool_choice": null)", "ok"},
    {R"("tool_choice": "auto")", "400 unsupported_value tool_choice: "},
    {R"("tool_choice": {"type": "function"})", "400 unsupported_value tool_choice: "},
    {R"("function_call": "none")", "ok"},
    {R"("function_call": {"name": "f"})", "400 unsupported_value function_call: "},
    {R"("response_format": {"type": "text"})", "ok"},
    {R"("response_format": {"type": "json_schema", "json_schema": {}})", "400 unsupported_value response_format: "},
    {R"("modalities": null)", "ok"},
    {R"("modalities": ["text"])", "ok"},
    {R"("modalities": ["text", "audio"])", "400 unsupported_value modalities: "},
    {R"("modalities": "text")", "400 - modalities: "},
    {R"("audio": {"voice": "v"})", "400 unsupported_value audio: "},
    {R"("prediction": {"type": "content"})", "400 unsupported_value prediction: "},
    {R"("web_search_options": {"a": 1})", "400 unsupported_value web_search_options: "},
    {R"("moderation": {"a": 1})", "400 unsupported_value moderation: "},
    {R"("chat_template": "x")", "400 unsupported_value chat_template: "},
    {R"("parallel_tool_calls": true, "reasoning_effort": "low", "verbosity": "low", "chat_template_kwargs": {"a": 1})", "ok"},
    {R"("add_generation_prompt": "yes")", "400 - add_generation_prompt: "},
    {R"("continue_final_message": true)", "400 - continue_final_message: 'continue_final_message' is true, but the last message"},
    {R"("stop": ["a"], "n": 2, "seed": 3, "stream": true, "temperature": 0, "quiver": {"trace": true})", "ok"},
    {R"("stream_options": {"include_usage": true})", "400 - stream_options: "},
};

TEST(ParseChat, SettlesEveryField) {
  for (const auto& [members, expected] : kCases) EXPECT_THAT(refusal(members), StartsWith(expected)) << members;
}

TEST(ParseChat, ReadsValues) {
  const auto request = parsed(R"("max_completion_tokens": 9, "logprobs": true, "top_logprobs": 3, "seed": 4, "n": 2)");
  EXPECT_EQ(request.generation.max_tokens, 9);
  EXPECT_TRUE(request.gives_log_probs);
  EXPECT_EQ(request.top_log_probs, 3);
  EXPECT_EQ(request.generation.options.top_log_probs, 3);
  EXPECT_EQ(request.generation.num_choices, 2);
  EXPECT_EQ(parsed(R"("max_tokens": 8)").generation.max_tokens, 8);
  EXPECT_EQ(parsed("").generation.max_tokens, std::nullopt);
  EXPECT_EQ(parsed("").generation.options.top_log_probs, -1);
  EXPECT_EQ(parsed(R"("logprobs": true)").generation.options.top_log_probs, 0);
}

TEST(ParseChat, ReadsMessages) {
  EXPECT_THAT(messages_of(R"([{"role": "developer", "content": "be brief"}, {"role": "user", "content": "a"},
                              {"role": "assistant", "content": null}, {"role": "user", "content": [{"type": "text", "text": "b"},
                              {"type": "text", "text": "c"}]}, {"role": "assistant"}, {"role": "user", "content": []}])"),
              ElementsAre("system: be brief", "user: a", "assistant: ", "user: b\nc", "assistant: ", "user: "));
  const auto request = parsed(R"("messages": [{"role": "user", "content": "a", "name": "n", "odd": 1, "tool_calls": null},
                                              {"role": "assistant", "content": "b", "refusal": null, "tool_calls": [], "odd": 2},
                                              {"role": "user", "content": "c", "name": "m"}], "verbosity": "low")");
  EXPECT_THAT(request.generation.ignored_fields, ElementsAre("verbosity", "messages.name", "messages.odd"));
}

TEST(ParseChat, RefusesMessagesByTheirPlace) {
  EXPECT_THAT(refusal_of_messages("[3]"), StartsWith("400 - messages[0]: 'messages[0]' is the number 3; expected an object"));
  EXPECT_THAT(refusal_of_messages(R"([{"content": "a"}])"), StartsWith("400 - messages[0].role: 'messages[0].role' is missing"));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "robot", "content": "a"}])"),
              StartsWith("400 - messages[0].role: 'messages[0].role' is 'robot'"));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}])"),
              StartsWith("400 unsupported_value messages[1].role: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": null}])"), StartsWith("400 - messages[0].content: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user"}])"), StartsWith("400 - messages[0].content: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": 5}])"), StartsWith("400 - messages[0].content: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": [{"type": "image_url"}]}])"),
              StartsWith("400 unsupported_value messages[0].content[0].type: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]}])"),
              StartsWith("400 - messages[0].content[1].text: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": ["a"]}])"), StartsWith("400 - messages[0].content[0]: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "user", "content": [{"text": "a"}]}])"), StartsWith("400 - messages[0].content[0]: "));
  EXPECT_THAT(refusal_of_messages(R"([{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}])"),
              StartsWith("400 unsupported_value messages[0].tool_calls: "));
  auto body = body_with("");
  body["messages"] = std::vector<json>(4096, body["messages"][0]);
  EXPECT_EQ(refusal_of([&] { parse_chat(body, kLimits); }), "ok");
  body["messages"].push_back(body["messages"][0]);
  EXPECT_THAT(refusal_of([&] { parse_chat(body, kLimits); }),
              HasSubstr("an array of 4097 values; expected an array of 1 to 4096 messages"));
  auto strict = kLimits;
  strict.unknown_fields = UnknownFields::kRefuse;
  EXPECT_THAT(refusal_of([&] { parse_chat(body_with(R"("messages": [{"role": "user", "content": "a", "odd": 1}])"), strict); }),
              HasSubstr("unrecognized request argument supplied: messages[0].odd"));
}

TEST(ParseChat, SaysWhereTheAnswerBegins) {
  const std::string from_user = R"("messages": [{"role": "user", "content": "a"}])";
  const std::string from_assistant = R"("messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])";
  const auto start = [](const std::string& messages, const std::string& rest) { return parsed(messages + rest).start; };
  EXPECT_EQ(start(from_user, ""), AnswerStart::kNewMessage);
  EXPECT_EQ(start(from_user, R"(, "add_generation_prompt": false)"), AnswerStart::kWithoutHeader);
  EXPECT_EQ(start(from_assistant, ""), AnswerStart::kFinalMessage);
  EXPECT_EQ(start(from_assistant, R"(, "add_generation_prompt": true)"), AnswerStart::kNewMessage);
  EXPECT_EQ(start(from_assistant, R"(, "continue_final_message": false)"), AnswerStart::kNewMessage);
  EXPECT_EQ(start(from_assistant, R"(, "continue_final_message": true, "add_generation_prompt": false)"), AnswerStart::kFinalMessage);
  EXPECT_THAT(refusal(from_assistant + R"(, "continue_final_message": true, "add_generation_prompt": true)"),
              StartsWith("400 - continue_final_message: "));
}

constexpr const char* kChatMl =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

std::string rendered(const std::string& source, const std::vector<text::Message>& messages, AnswerStart start) {
  return render_chat(text::ChatTemplate(source, "test", golden_tokenizer("smollm")), messages, start);
}

TEST(RenderChat, EndsWhereTheAnswerBegins) {
  const std::vector<text::Message> messages = {{"user", "a"}, {"assistant", "im b "}};
  const std::string before = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nim b ";
  EXPECT_EQ(rendered(kChatMl, messages, AnswerStart::kFinalMessage), before);
  EXPECT_EQ(rendered(kChatMl, messages, AnswerStart::kWithoutHeader), before + "<|im_end|>\n");
  EXPECT_EQ(rendered(kChatMl, messages, AnswerStart::kNewMessage), before + "<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(rendered(kChatMl, {{"user", "a"}, {"assistant", ""}}, AnswerStart::kFinalMessage),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
}

TEST(RenderChat, TrimsWhatTheTemplateTrims) {
  const std::string trimming = "{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}";
  EXPECT_EQ(rendered(trimming, {{"user", " a "}, {"assistant", " b \n"}}, AnswerStart::kFinalMessage), "[a][b");
  EXPECT_EQ(rendered(trimming, {{"user", " a "}, {"assistant", " b \n"}}, AnswerStart::kWithoutHeader), "[a][b]");
}

TEST(RenderChat, RefusesWhatTheTemplateRefuses) {
  EXPECT_THAT(refusal_of([] {
                rendered("{{ raise_exception('users first') }}", {{"user", "a"}}, AnswerStart::kNewMessage);
              }),
              ::testing::AllOf(StartsWith("400 - messages: "), HasSubstr("users first")));
  EXPECT_EQ(refusal_of([] {
              rendered("{{ messages[0]['content'] }}", {{"user", "a"}, {"assistant", "b"}}, AnswerStart::kFinalMessage);
            }),
            "400 - messages: the chat template does not write the last message as it is, so it cannot be continued");
  EXPECT_THAT(refusal_of([] { throw no_chat_template(); }), StartsWith("400 no_chat_template messages: "));
}

}  // namespace
}  // namespace quiver::api::parse_chat_test
