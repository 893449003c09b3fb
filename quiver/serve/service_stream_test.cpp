// Streams of the service: what comes, what does not, and who gives up.
#include "quiver/serve/service.h"

#include "quiver/serve/service_test_support.h"

namespace quiver::serve {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ServiceStreams, AStreamAddsUpToTheWholeAnswer) {
  Serving serving;
  RandomStream random(3, "streams");
  const std::vector<std::string> words = {"Paris", " is", "\n", "\xc3\xa9", "\xe2\x80\x99", " the", "1", "{", "\xf0\x9f\x98\x80"};
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    std::string prompt;
    for (std::uint64_t i = 0; i < 1 + random.below(6); ++i) prompt += words[random.below(words.size())];
    const std::int64_t n = 1 + static_cast<std::int64_t>(random.below(3));
    json body = {{"model", random.below(2) == 0 ? "tiny" : "arrow"},
                 {"max_tokens", 1 + random.below(40)},
                 {"n", n},
                 {"seed", random.below(1000)},
                 {"temperature", random.below(2)},
                 {"stop", json::array({"e", "or "})}};
    if (random.below(2) == 0) body["stop"] = json::array({"qqq", words[random.below(words.size())]});
    const bool is_chat = random.below(2) == 0;
    is_chat ? body["messages"] = json::array({{{"role", "user"}, {"content", prompt}}}) : body["prompt"] = prompt;
    if (!is_chat && random.below(3) == 0) body["echo"] = true;
    const bool wants_usage = random.below(2) == 0;
    const auto* path = is_chat ? "/v1/chat/completions" : "/v1/completions";
    const auto whole = serving.post(path, body);
    ASSERT_EQ(whole.status, 200) << whole.body;
    body["stream"] = true;
    if (wants_usage) body["stream_options"] = {{"include_usage", true}};
    const auto stream = serving.post(path, body);
    ASSERT_EQ(stream.status, 200) << stream.body;
    EXPECT_TRUE(stream.is_whole);
    EXPECT_THAT(stream.headers.at("content-type"), StartsWith("text/event-stream"));
    EXPECT_EQ(stream.headers.at("cache-control"), "no-cache");
    auto events = events_of(stream.body);
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    std::vector<std::string> texts(static_cast<std::size_t>(n)), ends(static_cast<std::size_t>(n));
    int num_usage = 0;
    for (const auto& event : events) {
      const auto chunk = json::parse(event);
      if (chunk["choices"].empty()) {
        ++num_usage;
        EXPECT_EQ(chunk["usage"]["completion_tokens"], json::parse(whole.body)["usage"]["completion_tokens"]);
        continue;
      }
      const auto& choice = chunk["choices"][0];
      const auto index = choice["index"].get<std::size_t>();
      if (!is_chat) texts[index] += choice["text"].get<std::string>();
      if (is_chat && choice["delta"].contains("content")) texts[index] += choice["delta"]["content"].get<std::string>();
      if (!choice["finish_reason"].is_null()) ends[index] += choice["finish_reason"].get<std::string>();
    }
    EXPECT_EQ(num_usage, wants_usage ? 1 : 0);
    const auto told = json::parse(whole.body);
    for (const auto& choice : told["choices"]) {
      const auto index = choice["index"].get<std::size_t>();
      EXPECT_EQ(texts[index], (is_chat ? choice["message"]["content"] : choice["text"]).get<std::string>());
      EXPECT_EQ(ends[index], choice["finish_reason"].get<std::string>());
    }
  }
  EXPECT_TRUE(serving.has_nothing_open());
}

std::string from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0, count = 0;
  for (const char c : text.substr(0, text.find('='))) {
    bits = bits << 6 | static_cast<std::uint32_t>(digits.find(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 255);
  }
  return bytes;
}

TEST(ServiceStreams, TellsTheRoutesOfEveryToken) {
  Serving serving;
  auto body = completion("arrow", 20);
  body["quiver"] = {{"trace", "layers"}};
  body["prompt"] = {5, 6, 7};
  body["return_token_ids"] = true;
  body["stream"] = true;
  std::string expected;
  auto state = schedule::FakeEngine::begin_state("arrow");
  for (const auto token : {5, 6, 7}) state = schedule::FakeEngine::next_state(state, token);
  const auto tokens = answer_of(serving.engine, request_of({5, 6, 7}, 20, assignment_of("arrow")));
  for (const auto token : tokens) {
    for (const auto& [adapter, share] : serving.engine.route_of(state)) {
      expected += static_cast<char>(adapter);
      expected += static_cast<char>(std::lround(255 * share));
    }
    state = schedule::FakeEngine::next_state(state, token);
  }
  std::string data, text, texts;
  for (const auto& event : events_of(serving.post("/v1/completions", body).body)) {
    if (event == "[DONE]") continue;
    const auto choice = json::parse(event)["choices"][0];
    text += choice["text"].get<std::string>();
    if (!choice.contains("quiver")) continue;
    if (data.empty()) {
      EXPECT_EQ(choice["quiver"]["route_header"], (json{{"adapters", {"red", "blue"}}, {"layers", 2}, {"projections", 8}, {"ids", "u8"}}));
    }
    const auto& route = choice["quiver"]["route"];
    EXPECT_EQ(route["t0"], data.size() / 4);
    data += from_base64(route["data"]);
    for (const auto& part : route["texts"]) texts += part.get<std::string>();
  }
  EXPECT_EQ(data, expected);
  EXPECT_EQ(texts, text);
  body["stream"] = false;
  const auto whole = json::parse(serving.post("/v1/completions", body).body)["choices"][0]["quiver"]["route"];
  EXPECT_EQ(from_base64(whole["data"]), expected);
}

TEST(ServiceStreams, AClientThatGoesAwayFreesItsSequences) {
  auto options = service_options();
  options.max_sequences = 2;
  Serving serving(options, [] { std::this_thread::sleep_for(1ms); });
  for (const bool is_stream : {false, true}) {
    std::vector<http::Client> clients;
    for (int i = 0; i < 4; ++i) {  // two run, two wait
      auto body = completion("tiny", 4000);
      body["stream"] = is_stream;
      clients.emplace_back(serving.server->port());
      clients.back().send(Serving::request("POST", "/v1/completions", body.dump()));
    }
    ASSERT_TRUE(eventually([&] {
      const auto counts = serving.loop->status().counts;
      return counts.num_running == 2 && counts.num_waiting == 2;
    }));
    for (auto& client : clients) is_stream ? client.reset() : client.close();
    EXPECT_TRUE(serving.has_nothing_open());
  }
  EXPECT_EQ(serving.service->metrics().total("quiver_requests_total"), 8);
  EXPECT_EQ(serving.service->metrics().total("quiver_cancelled_total"), 8);
  EXPECT_EQ(serving.status()["requests"]["cancelled"], 8);
}

TEST(ServiceStreams, AnErrorInsideAStreamIsItsLastEvent) {
  std::atomic<int> steps{0};
  Serving serving(service_options(), [&] {
    if (++steps == 4) fail(ErrorKind::kInternal, "a broken step");
  });
  auto body = completion("tiny", 50);
  body["stream"] = true;
  const auto stream = serving.post("/v1/completions", body);
  EXPECT_TRUE(stream.is_whole);
  const auto last = json::parse(events_of(stream.body).back());
  EXPECT_THAT(last["error"]["message"].get<std::string>(), HasSubstr("a broken step"));
  EXPECT_THAT(last["error"]["message"].get<std::string>(), HasSubstr(stream.headers.at("x-request-id")));
  EXPECT_THAT(stream.body, ::testing::Not(HasSubstr("[DONE]")));
  EXPECT_EQ(serving.post("/v1/completions", completion()).status, 200);
  EXPECT_TRUE(serving.has_nothing_open());  // an answer is counted once it is out
  const auto status = serving.status();
  EXPECT_EQ(status["requests"], (json{{"finished", 1}, {"failed", 1}, {"cancelled", 0}}));
  EXPECT_EQ(status["errors"][0]["status"], 500);
  EXPECT_EQ(status["errors"][0]["request"], stream.headers.at("x-request-id"));
}

TEST(ServiceStreams, PingsWhileARequestWaitsAndGivesItUpAfterAWhile) {
  auto options = service_options();
  options.stream_limits.ping_interval = 20ms;
  options.stream_limits.queue_timeout = 150ms;
  Gate gate;
  Serving serving(options, [&] { gate.pass(); });
  auto body = completion();
  body["stream"] = true;
  const auto stream = serving.post("/v1/completions", body);
  EXPECT_THAT(stream.body, StartsWith(": ping\n\n: ping\n\n"));
  EXPECT_EQ(json::parse(events_of(stream.body).back())["error"]["code"], "queue_timeout");
  EXPECT_EQ(serving.post("/v1/completions", completion()).status, 503);
  gate.open();
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(ServiceStreams, ASlowReaderPausesItsOwnSequenceAlone) {
  auto options = service_options();
  options.stream_limits.most_unread_bytes = 20'000;
  options.stream_limits.unread_timeout = 400ms;
  Serving serving(options);
  http::Client slow(serving.server->port(), /*receive_bytes=*/2048);
  auto body = completion("tiny", 4000);
  body["stream"] = true;
  body["n"] = 8;
  body["logprobs"] = 5;
  slow.send(Serving::request("POST", "/v1/completions", body.dump()));
  const auto made = [&] { return serving.loop->status().counts.generated_tokens; };
  ASSERT_TRUE(eventually([&] {
    const auto before = made();
    std::this_thread::sleep_for(30ms);
    return serving.loop->num_open() == 8 && before > 0 && made() == before;
  })) << "paused";
  EXPECT_LT(made(), 8u * 4000);
  EXPECT_EQ(serving.post("/v1/completions", completion()).status, 200) << "meanwhile";
  EXPECT_TRUE(serving.has_nothing_open()) << "given up";
  EXPECT_NE(serving.ask("GET", "/metrics").body.find("quiver_cancelled_total{reason=\"slow_reader\"} 1\n"), std::string::npos);
  EXPECT_EQ(serving.post("/v1/completions", completion()).status, 200);
}

}  // namespace
}  // namespace quiver::serve
