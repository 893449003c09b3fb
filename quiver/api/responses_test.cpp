#include "quiver/api/responses.h"

#include <limits>

#include "fuzz/tokenizer.h"
#include "quiver/api/test_support.h"

namespace quiver::api {
namespace {

using nlohmann::json;

const text::Tokenizer& tokenizer() {
  static const auto made = fuzz::lossless_tokenizer();
  return made;
}

const AnswerHead kCompletion = {.id = "cmpl-1", .created = 100, .model = "arrow", .seed = 7};
const AnswerHead kChat = {.endpoint = Endpoint::kChat, .id = "chatcmpl-1", .created = 100, .model = "arrow", .seed = 7};
const Usage kUsage = {.num_prompt_tokens = 5, .num_answer_tokens = 2, .num_cached_tokens = 4};
const json kUsageJson = {
    {"prompt_tokens", 5}, {"completion_tokens", 2}, {"total_tokens", 7}, {"prompt_tokens_details", {{"cached_tokens", 4}}}};

AnswerHead with_log_probs(AnswerHead head, std::int64_t top) {
  head.top_log_probs = top;
  return head;
}

/// "ab", the second token likelier than the first.
Delta scored() {
  return {.text = "ab",
          .tokens = {{.id = 'a', .score = schedule::TokenScore{.token = 'a', .log_prob = -2.5, .top = {{'b', -0.1}}}, .text_offset = 0},
                     {.id = 'b', .score = schedule::TokenScore{.token = 'b', .log_prob = -0.25, .top = {{'b', -0.25}}}, .text_offset = 1}},
          .finish = FinishReason::kLength};
}

/// The objects of a stream's events; "[DONE]" and comments are left out.
std::vector<json> events_of(const std::string& stream) {
  std::vector<json> events;
  std::size_t begin = 0;
  for (auto end = stream.find("\n\n"); end != std::string::npos; end = stream.find("\n\n", begin)) {
    const auto event = stream.substr(begin, end - begin);
    begin = end + 2;
    EXPECT_EQ(event.find('\n'), std::string::npos);
    if (event.starts_with(":") || event == "data: [DONE]") continue;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    events.push_back(json::parse(event.substr(6)));
  }
  EXPECT_EQ(begin, stream.size());
  return events;
}

TEST(AnswerBody, OfCompletionsIsOpenAis) {
  const Choice choices[] = {{.index = 0, .delta = {.text = "a\n", .finish = FinishReason::kStop}}, {.index = 1, .delta = scored()}};
  EXPECT_EQ(json::parse(answer_body(kCompletion, choices, kUsage, tokenizer())),
            json({{"id", "cmpl-1"},
                  {"object", "text_completion"},
                  {"created", 100},
                  {"model", "arrow"},
                  {"choices",
                   {{{"index", 0}, {"text", "a\n"}, {"logprobs", nullptr}, {"finish_reason", "stop"}},
                    {{"index", 1}, {"text", "ab"}, {"logprobs", nullptr}, {"finish_reason", "length"}}}},
                  {"usage", kUsageJson},
                  {"quiver", {{"seed", 7}}}}));
}

TEST(AnswerBody, ListsLogProbabilities) {
  auto delta = scored();
  delta.tokens.insert(delta.tokens.begin(), AnswerToken{.id = 0xE2});  // a prompt's first token
  const Choice choices[] = {{.delta = delta}};
  const auto body = json::parse(answer_body(with_log_probs(kCompletion, 1), choices, kUsage, tokenizer()));
  EXPECT_EQ(body.at("choices").at(0).at("logprobs"),
            json::parse(R"({"tokens": ["bytes:\\xe2", "a", "b"], "token_logprobs": [null, -2.5, -0.25],
                "top_logprobs": [null, {"b": -0.1, "a": -2.5}, {"b": -0.25}], "text_offset": [0, 0, 1]})"));
}

TEST(AnswerBody, ListsTheChosenTokenWithTheSameDouble) {
  const double log_prob = -1.2345678901234567;
  // The list has been rounded elsewhere; two tokens have the text of the chosen one; one is impossible.
  const Choice choices[] = {
      {.delta = {.tokens = {{.id = 'a', .score = schedule::TokenScore{.token = 'a', .log_prob = log_prob, .top = {{'a', -1.2345}}}},
                            {.id = 'b',
                             .score = schedule::TokenScore{.token = 'b',
                                                           .log_prob = -std::numeric_limits<double>::infinity(),
                                                           .top = {{1'000'000, -1}, {1'000'001, -2}}}}}}}};
  const auto text = answer_body(with_log_probs(kCompletion, 2), choices, kUsage, tokenizer());
  EXPECT_THAT(text, ::testing::HasSubstr(R"("token_logprobs":[-1.2345678901234567,-9999.0],"top_logprobs":[{"a":-1.2345678901234567},)"
                                         R"({"":-1.0,"b":-9999.0}])"));
}

TEST(AnswerBody, OfChatsIsOpenAis) {
  const Choice choices[] = {{.index = 0, .delta = scored()}};
  EXPECT_EQ(json::parse(answer_body(kChat, choices, kUsage, tokenizer())),
            json({{"id", "chatcmpl-1"},
                  {"object", "chat.completion"},
                  {"created", 100},
                  {"model", "arrow"},
                  {"choices",
                   {{{"index", 0},
                     {"message", {{"role", "assistant"}, {"content", "ab"}, {"refusal", nullptr}}},
                     {"logprobs", nullptr},
                     {"finish_reason", "length"}}}},
                  {"usage", kUsageJson},
                  {"quiver", {{"seed", 7}}}}));
  const auto log_probs = [&](std::int64_t top) {
    return json::parse(answer_body(with_log_probs(kChat, top), choices, kUsage, tokenizer())).at("choices").at(0).at("logprobs");
  };
  EXPECT_EQ(log_probs(1), json::parse(R"({"content": [
      {"token": "a", "logprob": -2.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.1, "bytes": [98]},
                                                                      {"token": "a", "logprob": -2.5, "bytes": [97]}]},
      {"token": "b", "logprob": -0.25, "bytes": [98], "top_logprobs": [{"token": "b", "logprob": -0.25, "bytes": [98]}]}],
      "refusal": null})"));
  EXPECT_EQ(log_probs(0).at("content").at(0), json::parse(R"({"token": "a", "logprob": -2.5, "bytes": [97], "top_logprobs": []})"));
}

TEST(AnswerBody, TellsTokenIdsAndOwnMembersIfAsked) {
  auto head = kCompletion;
  head.returns_token_ids = true;
  auto delta = scored();
  delta.tokens.insert(delta.tokens.begin(), AnswerToken{.id = 1, .is_prompt = true});  // an echo
  const Choice choices[] = {{.delta = delta, .prompt_ids = {1, 2}, .quiver_members = R"("route":{"t0":0})"}};
  const auto choice = json::parse(answer_body(head, choices, kUsage, tokenizer())).at("choices").at(0);
  EXPECT_EQ(choice.at("token_ids"), json({'a', 'b'}));
  EXPECT_EQ(choice.at("prompt_token_ids"), json({1, 2}));
  EXPECT_EQ(choice.at("quiver"), json({{"route", {{"t0", 0}}}}));
}

TEST(Events, OfAChatOpenWithTheRoleAndEndWithTheReason) {
  const Choice text = {.index = 1, .delta = {.text = "a"}};
  const Choice last = {.index = 1, .delta = {.text = "b", .finish = FinishReason::kStop}};
  const auto events = events_of(first_event(kChat, 1) + delta_event(kChat, text, tokenizer()) + kPingEvent +
                                delta_event(kChat, last, tokenizer()) + usage_event(kChat, kUsage) + kDoneEvent);
  ASSERT_EQ(events.size(), 4U);  // no usage without being asked for
  EXPECT_EQ(
      events[0],
      json({{"id", "chatcmpl-1"},
            {"object", "chat.completion.chunk"},
            {"created", 100},
            {"model", "arrow"},
            {"choices",
             {{{"index", 1}, {"delta", {{"role", "assistant"}, {"content", ""}}}, {"logprobs", nullptr}, {"finish_reason", nullptr}}}},
            {"quiver", {{"seed", 7}}}}));
  const auto choice = [](json delta, json finish) {
    return json({{"index", 1}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", std::move(finish)}});
  };
  EXPECT_EQ(events[1].at("choices").at(0), choice({{"content", "a"}}, nullptr));
  EXPECT_EQ(events[2].at("choices").at(0), choice({{"content", "b"}}, nullptr));
  EXPECT_EQ(events[3].at("choices").at(0), choice(json::object(), "stop"));
  EXPECT_FALSE(events[3].contains("usage"));
}

TEST(Events, TellUsageOnlyIfAsked) {
  for (auto head : {kChat, kCompletion}) {
    head.includes_usage = true;
    const Choice last = {.delta = {.text = "b", .finish = FinishReason::kStop}};
    const auto events = events_of(first_event(head, 0) + delta_event(head, last, tokenizer()) + usage_event(head, kUsage));
    ASSERT_EQ(events.size(), head.endpoint == Endpoint::kChat ? 4U : 2U);
    for (std::size_t i = 0; i + 1 < events.size(); ++i) EXPECT_EQ(events[i].at("usage"), nullptr);
    EXPECT_EQ(events.back().at("choices"), json::array());
    EXPECT_EQ(events.back().at("usage"), kUsageJson);
    EXPECT_EQ(usage_event(head.endpoint == Endpoint::kChat ? kChat : kCompletion, kUsage), "");
  }
}

TEST(Events, OfCompletionsAreBodiesOfOneChoice) {
  EXPECT_EQ(first_event(kCompletion, 0), "");
  const auto events = events_of(delta_event(with_log_probs(kCompletion, 0), {.index = 2, .delta = scored()}, tokenizer()));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0], json({{"id", "cmpl-1"},
                             {"object", "text_completion"},
                             {"created", 100},
                             {"model", "arrow"},
                             {"choices",
                              {{{"index", 2},
                                {"text", "ab"},
                                {"logprobs",
                                 {{"tokens", {"a", "b"}},
                                  {"token_logprobs", {-2.5, -0.25}},
                                  {"top_logprobs", {{{"b", -0.1}, {"a", -2.5}}, {{"b", -0.25}}}},
                                  {"text_offset", {0, 1}}}},
                                {"finish_reason", "length"}}}},
                             {"quiver", {{"seed", 7}}}}));
}

TEST(Events, CarryTheTokensThatHaveNoText) {
  // An EOS token's log-probability comes with the end of the answer.
  const Choice last = {
      .delta = {.tokens = {{.id = 256, .score = schedule::TokenScore{.token = 256, .log_prob = -1}}}, .finish = FinishReason::kStop}};
  const auto events = events_of(delta_event(with_log_probs(kChat, 0), last, tokenizer()));
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].at("choices").at(0).at("delta"), json::object());
  EXPECT_EQ(events[0].at("choices").at(0).at("logprobs").at("content").at(0).at("logprob"), -1);
  // Nobody asked for tokens.
  EXPECT_EQ(delta_event(kChat, {.delta = {.tokens = {{.id = 1}}}}, tokenizer()), "");
  EXPECT_EQ(delta_event(kChat, {}, tokenizer()), "");
}

TEST(Events, TellErrorsAndEnd) {
  EXPECT_EQ(error_event(ApiError(Reason::kShuttingDown, "bye")),
            "data: {\"error\":{\"message\":\"bye\",\"type\":\"server_error\",\"param\":null,\"code\":\"shutting_down\"}}\n\n");
  EXPECT_EQ(std::string(kDoneEvent), "data: [DONE]\n\n");
  EXPECT_EQ(std::string(kPingEvent), ": ping\n\n");
  EXPECT_EQ(stream_headers(), (Headers{{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}));
}

TEST(Models, AreListed) {
  const ModelObject base = {.id = "base", .created = 3, .max_model_len = 64, .kind = "base", .decides = "once", .sha256 = "ab"};
  const ModelObject arrow = {.id = "arrow",
                             .created = 3,
                             .parent = "base",
                             .max_model_len = 64,
                             .kind = "method",
                             .method = "arrow",
                             .adapters = {"x", "y"},
                             .combine = "outputs",
                             .decides = "token",
                             .is_ready = false};
  const ModelObject both[] = {base, arrow};
  const auto list = json::parse(models_body(both));
  EXPECT_EQ(list.at("object"), "list");
  EXPECT_EQ(list.at("data").at(0), json::parse(model_body(base)));
  EXPECT_EQ(list.at("data").at(1), json::parse(R"({"id": "arrow", "object": "model", "created": 3, "owned_by": "quiver", "root": "arrow",
      "parent": "base", "max_model_len": 64, "quiver": {"kind": "method", "method": "arrow", "adapters": ["x", "y"], "combine": "outputs",
      "decides": "token", "sha256": null, "is_ready": false}})"));
  EXPECT_EQ(list.at("data").at(0).at("parent"), nullptr);
  EXPECT_EQ(json::parse(models_body({})), json::parse(R"({"object": "list", "data": []})"));
}

}  // namespace
}  // namespace quiver::api
