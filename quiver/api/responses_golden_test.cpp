// Against answers that OpenAI's Python client builds from its types (tests/golden/api).
#include "fuzz/tokenizer.h"
#include "quiver/api/responses.h"
#include "quiver/api/test_support.h"

namespace quiver::api::golden_answers_test {
namespace {

using nlohmann::json;

/// The object of an answer, or of the only event, without our own member.
json object_of(std::string text) {
  if (text.starts_with("data: ")) text = text.substr(6);
  auto object = json::parse(text);
  object.erase("quiver");
  return object;
}

TEST(GoldenAnswers, AreWhatOpenAisTypesHold) {
  const auto golden = io::read_json_file("tests/golden/api/answers.json");
  const auto tokenizer = fuzz::lossless_tokenizer();
  const Usage usage = {.num_prompt_tokens = 5, .num_answer_tokens = 2, .num_cached_tokens = 4};
  const Choice scored = {
      .delta = {
          .text = "ab",
          .tokens = {{.id = 'a', .score = schedule::TokenScore{.token = 'a', .log_prob = -2.5, .top = {{'b', -0.1}}}, .text_offset = 0},
                     {.id = 'b', .score = schedule::TokenScore{.token = 'b', .log_prob = -0.25, .top = {{'b', -0.25}}}, .text_offset = 1}},
          .finish = FinishReason::kLength}};
  const Choice plain = {.delta = {.text = "ab", .finish = FinishReason::kLength}};
  AnswerHead head = {.id = "cmpl-1", .created = 100, .model = "arrow"};
  EXPECT_EQ(object_of(delta_event(head, plain, tokenizer)), golden.at("completion_chunk"));
  head.top_log_probs = 1;
  EXPECT_EQ(object_of(answer_body(head, std::span(&scored, 1), usage, tokenizer)), golden.at("completion"));
  head.includes_usage = true;
  EXPECT_EQ(object_of(usage_event(head, usage)), golden.at("completion_usage"));

  head = {.endpoint = Endpoint::kChat, .id = "chatcmpl-1", .created = 100, .model = "arrow"};
  EXPECT_EQ(object_of(first_event(head, 0)), golden.at("chat_first"));
  EXPECT_EQ(object_of(delta_event(head, {.delta = {.text = "ab"}}, tokenizer)), golden.at("chat_text"));
  EXPECT_EQ(object_of(delta_event(head, {.delta = {.finish = FinishReason::kLength}}, tokenizer)), golden.at("chat_end"));
  head.top_log_probs = 1;
  EXPECT_EQ(object_of(answer_body(head, std::span(&scored, 1), usage, tokenizer)), golden.at("chat"));
  head.includes_usage = true;
  EXPECT_EQ(object_of(usage_event(head, usage)), golden.at("chat_usage"));
}

}  // namespace
}  // namespace quiver::api::golden_answers_test
