#include "quiver/serve/service.h"

#include "quiver/serve/service_test_support.h"
#include "quiver/serve/web_assets.h"

namespace quiver::serve {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

json completion(const std::string& model = "tiny", std::int64_t max_tokens = 6) {
  return {{"model", model}, {"prompt", "Paris is"}, {"max_tokens", max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
}

TEST(Service, AnswersACompletionOfEveryModelAsTheEngineDoesAlone) {
  Serving serving;
  const auto prompt = serving.tokenizer.encode("Paris is", {.add_special_tokens = false});
  for (const auto* model : {"tiny", "red", "blue", "arrow", "pooled", "slow"}) {
    auto body = completion(model);
    body["return_token_ids"] = true;
    body["skip_special_tokens"] = false;
    const auto answer = serving.post("/v1/completions", body);
    ASSERT_EQ(answer.status, 200) << answer.body;
    const auto told = json::parse(answer.body);
    const auto expected = answer_of(serving.engine, request_of(prompt, 6, assignment_of(model)));
    EXPECT_EQ(told["choices"][0]["token_ids"], json(expected)) << model;
    EXPECT_EQ(told["choices"][0]["text"], serving.tokenizer.decode(expected));
    EXPECT_EQ(told["usage"]["prompt_tokens"], prompt.size());
    EXPECT_EQ(told["usage"]["completion_tokens"], 6);
    EXPECT_EQ(told["model"], model);
    EXPECT_THAT(answer.headers.at("x-request-id"), MatchesRegex("req-[0-9a-f]{12}-[0-9]+"));
    EXPECT_GE(std::stoi(answer.headers.at("openai-processing-ms")), 0);
    EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  }
  EXPECT_EQ(serving.models.num_loads, 1);
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(Service, ManyCallsWaitForOneModelToLoad) {
  Serving serving;
  std::vector<std::thread> threads;
  std::atomic<int> num_good{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { num_good += serving.post("/v1/completions", completion("slow")).status == 200 ? 1 : 0; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(num_good, 8);
}

struct Case {
  const char* method;
  const char* path;
  const char* body;
  const char* expected;  // status, code, param, beginning of the message
};
const Case kRefusals[] = {
    {"GET", "/nothing", "", "404 - -: there is no endpoint '/nothing'"},
    {"POST", "/nothing", "{}", "404 - -: there is no endpoint '/nothing'"},
    {"GET", "/v1/completions", "", "405 - -: '/v1/completions' takes POST, not GET"},
    {"POST", "/health", "{}", "405 - -: '/health' takes GET, not POST"},
    {"GET", "/v1/models/green", "", "404 model_not_found model: "},
    {"POST", "/v1/completions", "{", "400 invalid_json -: "},
    {"POST", "/v1/completions", "[]", "400 invalid_json -: "},
    {"POST", "/v1/completions", "{}", "400 - model: "},
    {"POST", "/v1/completions", R"({"model":"green","prompt":"a"})", "404 model_not_found model: "},
    {"POST", "/v1/completions", R"({"model":"tiny","prompt":[1500]})", "400 - prompt[0]: "},
    {"POST", "/v1/completions", R"({"model":"tiny","prompt":"a","max_tokens":5000})", "400 context_length_exceeded"},
    {"POST", "/v1/completions", R"({"model":"tiny","prompt":"a","quiver":{"top_k":3}})", "400 - quiver.top_k: too many"},
    {"POST", "/v1/completions", R"({"model":"tiny","prompt":"a","quiver":{"trace":"layers"}})",
     "400 - quiver.trace: 'tiny' routes nothing"},
    {"POST", "/v1/completions", R"({"model":"arrow","prompt":"a","quiver":{"trace":"full"}})",
     "400 unsupported_value quiver.trace: routes"},
    {"POST", "/v1/completions", R"({"model":"pooled","prompt":"a b","echo":true,"logprobs":1})",
     "400 - quiver.context_tokens: 'pooled' decides once per prompt"},
    {"POST", "/v1/chat/completions", R"({"model":"tiny"})", "400 - messages: "},
    {"POST", "/v1/chat/completions", R"({"model":"green","messages":[{"role":"user","content":"a"}]})", "404 model_not_found model: "},
    {"POST", "/tokenize", "{}", "400 - "},
    {"POST", "/v1/quiver/route", "{}", "400 "},
    {"POST", "/v1/load_lora_adapter", R"({"lora_name":"x","lora_path":"/y"})", "403 forbidden -: adapters cannot be changed"},
};

TEST(Service, RefusesWithAStatusAndASentence) {
  Serving serving;
  for (const auto& [method, path, body, expected] : kRefusals) {
    const auto answer = serving.ask(method, path, body);
    EXPECT_THAT(error_of(answer), StartsWith(expected)) << method << " " << path << " " << body;
    EXPECT_TRUE(answer.headers.contains("x-request-id")) << path;
    if (answer.status == 405) {
      EXPECT_THAT(error_of(answer), HasSubstr(answer.headers.at("allow")));
    }
  }
  EXPECT_EQ(serving.ask("POST", "/v1/completions", "{}", "Content-Type: text/plain\r\n").status, 415);
  EXPECT_EQ(serving.ask("POST", "/v1/quiver/route", std::string(70'000, ' ')).status, 413);
  EXPECT_EQ(serving.ask("POST", "/v1/completions", std::string(70'000, ' ')).status, 400);
  EXPECT_EQ(serving.ask("POST", "/v1/completions", std::string((4 << 20) + 1, ' ')).status, 413);
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(Service, SmallEndpoints) {
  Serving serving;
  const auto get = [&](const std::string& path) { return json::parse(serving.ask("GET", path).body); };
  EXPECT_EQ(get("/health")["status"], "ok");
  EXPECT_EQ(get("/ready")["status"], "ready");
  EXPECT_EQ(get("/health?ready")["status"], "ready");
  EXPECT_EQ(get("/v1/models")["data"].size(), 6u);
  EXPECT_EQ(get("/v1/models/arrow")["id"], "arrow");
  EXPECT_EQ(get("/tokenizer_info")["chat_template"], serving.chat.source());
  EXPECT_EQ(get("/v1/quiver/library")["base"], "tiny");
  const auto tokens = json::parse(serving.post("/tokenize", {{"prompt", "Paris is"}}).body)["tokens"];
  EXPECT_EQ(tokens, json(serving.tokenizer.encode("Paris is", {.add_special_tokens = false})));
  EXPECT_EQ(json::parse(serving.post("/detokenize", {{"tokens", tokens}}).body)["prompt"], "Paris is");
  const auto trace = json::parse(serving.post("/v1/quiver/route", {{"model", "arrow"}, {"prompt", "Paris is"}}).body);
  EXPECT_EQ(trace, (json{{"model", "arrow"}, {"tokens", tokens}}));
  const auto head = serving.ask("HEAD", "/health");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "15");
  const auto options = serving.ask("OPTIONS", "/v1/completions");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "GET, POST");
  EXPECT_FALSE(options.headers.contains("access-control-allow-origin"));
}

TEST(Service, ServesThePage) {
  Serving serving;
  for (const auto* path : {"/", "/app.js", "/style.css"}) {
    const auto answer = serving.ask("GET", path);
    ASSERT_EQ(answer.status, 200) << path;
    EXPECT_EQ(answer.body, find_web_file(path)->content);
    const auto packed = serving.ask("GET", path, {}, "Accept-Encoding: br, gzip\r\n");
    EXPECT_EQ(packed.body, find_web_file(path)->gzip);
    EXPECT_EQ(packed.headers.at("content-encoding"), "gzip");
    EXPECT_THAT(answer.headers.at("content-security-policy"), HasSubstr("default-src 'none'"));
    EXPECT_EQ(answer.headers.at("x-content-type-options"), "nosniff");
    const auto again = serving.ask("GET", path, {}, "If-None-Match: " + answer.headers.at("etag") + "\r\n");
    EXPECT_EQ(again.status, 304);
    EXPECT_EQ(again.headers.at("etag"), answer.headers.at("etag"));
  }
  EXPECT_EQ(serving.ask("HEAD", "/").status, 200);
  EXPECT_EQ(serving.ask("GET", "/web/app.js").status, 404);
  EXPECT_EQ(serving.ask("GET", "/../service.cpp").status, 404);
}

TEST(Service, ChecksKeysHostsAndOrigins) {
  auto options = service_options();
  options.api_key = "user";
  options.admin_key = "root";
  options.hosts = {"localhost", "127.0.0.1"};
  options.cors_origin = "https://app.example";
  Serving serving(options);
  const auto status = [&](const std::string& path, const std::string& headers) { return serving.ask("GET", path, {}, headers).status; };
  EXPECT_EQ(status("/v1/models", ""), 401);
  EXPECT_EQ(status("/v1/models", "Authorization: Bearer wrong\r\n"), 401);
  EXPECT_EQ(status("/v1/models", "Authorization: Bearer user\r\n"), 200);
  EXPECT_EQ(status("/v1/models", "Authorization: bearer root\r\n"), 200);
  EXPECT_EQ(status("/v1/quiver/status", ""), 401);
  for (const auto* path : {"/health", "/ready", "/metrics", "/", "/tokenizer_info"}) EXPECT_EQ(status(path, ""), 200) << path;
  const auto refused = serving.ask("GET", "/v1/models", {}, "Origin: https://app.example\r\n");
  EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  EXPECT_TRUE(refused.headers.contains("x-request-id"));
  EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://app.example") << "so that a page can read why";
  EXPECT_EQ(status("/health", "Host: evil.example\r\n"), 403);
  EXPECT_EQ(status("/health", "Host: LOCALHOST:8080\r\n"), 200);
  EXPECT_EQ(status("/health", "Origin: https://evil.example\r\n"), 403);
  EXPECT_EQ(status("/health", "Origin: http://localhost\r\n"), 200) << "its own page";
  const auto preflight = serving.ask("OPTIONS", "/v1/completions", {}, "Origin: https://app.example\r\n");
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://app.example");
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "Authorization, Content-Type");
  const json adapter = {{"lora_name", "green"}, {"lora_path", "/green"}};
  EXPECT_EQ(serving.post("/v1/load_lora_adapter", adapter, "Authorization: Bearer user\r\n").status, 401);
  const std::string root = "Authorization: Bearer root\r\n";
  EXPECT_EQ(json::parse(serving.post("/v1/load_lora_adapter", adapter, root).body)["status"], "loaded");
  EXPECT_EQ(serving.post("/v1/load_lora_adapter", adapter, root).status, 409);
  EXPECT_EQ(serving.post("/v1/completions", completion("green"), root).status, 200);
  EXPECT_EQ(serving.post("/v1/unload_lora_adapter", {{"lora_name", "green"}}, root).status, 200);
  EXPECT_EQ(serving.post("/v1/unload_lora_adapter", {{"lora_name", "green"}}, root).status, 404);
  EXPECT_EQ(serving.post("/v1/completions", completion("green"), root).status, 404);
}

TEST(Service, UnloadingWaitsForWhoUsesTheAdapterAndHoldsUpNobody) {
  auto options = service_options();
  options.admin_key = "root";
  Gate gate;
  Serving serving(options, [&] { gate.pass(); });
  http::Client user(serving.server->port()), admin(serving.server->port());
  user.send(Serving::request("POST", "/v1/completions", completion("red").dump()));
  gate.wait_for_arrival();
  admin.send(Serving::request("POST", "/v1/unload_lora_adapter", R"({"lora_name":"red","wait":true})", "Authorization: Bearer root\r\n"));
  ASSERT_TRUE(eventually([&] { return serving.ask("GET", "/v1/models/red").status == 404; }));
  EXPECT_EQ(serving.post("/v1/quiver/route", {{"model", "arrow"}, {"prompt", "a"}}).status, 200) << "the loader is free";
  pollfd waits{admin.descriptor(), POLLIN, 0};
  EXPECT_EQ(::poll(&waits, 1, 30), 0) << "an answer too early";
  gate.open();
  EXPECT_EQ(user.answer().status, 200);
  EXPECT_EQ(json::parse(admin.answer().body)["status"], "unloaded");
}

TEST(Service, AStreamAddsUpToTheWholeAnswer) {
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

TEST(Service, ScoresAnEchoAndGivesNoTokenWhereNoneIsAsked) {
  Serving serving;
  auto body = completion("red", 0);
  body["echo"] = true;
  body["logprobs"] = 1;
  body["prompt"] = {5, 6, 7};
  const auto scored = json::parse(serving.post("/v1/completions", body).body)["choices"][0]["logprobs"];
  ASSERT_EQ(scored["token_logprobs"].size(), 3u);
  EXPECT_TRUE(scored["token_logprobs"][0].is_null());
  auto state = schedule::FakeEngine::next_state(schedule::FakeEngine::begin_state("red"), 5);
  const auto row = schedule::FakeEngine::answer({.target = 6, .top = 1}, serving.engine.logits_of(state));
  EXPECT_EQ(scored["token_logprobs"][1], row.score.log_prob);
  for (const bool echoes : {true, false}) {
    auto plain = completion("red", 0);
    plain["echo"] = echoes;
    const auto answer = serving.post("/v1/completions", plain);
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(json::parse(answer.body)["choices"][0]["text"], echoes ? "Paris is" : "");
    EXPECT_EQ(json::parse(answer.body)["choices"][0]["finish_reason"], "length");
  }
}

TEST(Service, SaysWhichFieldsHaveNoEffect) {
  Serving serving;
  auto body = completion();
  body["frobnicate"] = 1;
  body["user"] = "me";
  EXPECT_EQ(serving.post("/v1/completions", body).headers.at("x-quiver-ignored"), "user,frobnicate");
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

TEST(Service, TellsTheRoutesOfEveryToken) {
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

TEST(Service, RefusesMoreThanMayWaitAndWhatComesWhileItDrains) {
  auto options = service_options();
  options.max_sequences = 1;
  options.max_waiting = 1;
  Gate gate;
  Serving serving(options, [&] { gate.pass(); });
  http::Client running(serving.server->port()), waiting(serving.server->port());
  running.send(Serving::request("POST", "/v1/completions", completion().dump()));
  gate.wait_for_arrival();
  waiting.send(Serving::request("POST", "/v1/completions", completion().dump()));
  ASSERT_TRUE(eventually([&] { return serving.loop->num_open() == 2; }));
  const auto refused = serving.post("/v1/completions", completion());
  EXPECT_THAT(error_of(refused), StartsWith("429 queue_full -: 2 requests wait already"));
  EXPECT_GE(std::stoi(refused.headers.at("retry-after")), 1);
  serving.service->begin_drain();
  const auto late = serving.post("/v1/completions", completion());
  EXPECT_THAT(error_of(late), StartsWith("503 shutting_down -: "));
  EXPECT_TRUE(late.headers.contains("retry-after"));
  EXPECT_EQ(serving.ask("GET", "/ready").status, 503);
  EXPECT_EQ(serving.ask("GET", "/health").status, 200);
  EXPECT_FALSE(serving.service->is_idle());
  gate.open();
  EXPECT_EQ(waiting.answer().status, 503);
  EXPECT_EQ(running.answer().status, 200);
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(Service, EndsAllRequestsAtOnce) {
  Gate gate;
  Serving serving(service_options(), [&] { gate.pass(); });
  http::Client stream(serving.server->port()), plain(serving.server->port());
  auto body = completion();
  body["stream"] = true;
  stream.send(Serving::request("POST", "/v1/completions", body.dump()));
  plain.send(Serving::request("POST", "/v1/completions", completion().dump()));
  ASSERT_TRUE(eventually([&] { return serving.loop->num_open() == 2; }));
  serving.service->end_all();
  EXPECT_TRUE(serving.service->is_idle());
  EXPECT_EQ(plain.answer().status, 503);
  const auto events = events_of(stream.answer().body);
  EXPECT_EQ(json::parse(events.back())["error"]["code"], "shutting_down");
  gate.open();
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(Service, AClientThatGoesAwayFreesItsSequences) {
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

TEST(Service, AnErrorInsideAStreamIsItsLastEvent) {
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

TEST(Service, PingsWhileARequestWaitsAndGivesItUpAfterAWhile) {
  auto options = service_options();
  options.stream_limits.ping_interval = 20ms;
  options.stream_limits.queue_timeout = 150ms;
  Gate gate;
  Serving serving(options, [&] { gate.pass(); });
  auto body = completion();
  body["stream"] = true;
  const auto stream = serving.post("/v1/completions", body);
  EXPECT_THAT(stream.body, StartsWith(": ping\n\n: ping\n\n"));
  EXPECT_EQ(json::parse(events_of(stream.body).back())["error"]["code"], "queue_full");
  EXPECT_EQ(serving.post("/v1/completions", completion()).status, 429);
  gate.open();
  EXPECT_TRUE(serving.has_nothing_open());
}

TEST(Service, ASlowReaderPausesItsOwnSequenceAlone) {
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

TEST(Service, CountsAddUpInMetricsAndStatus) {
  Serving serving;
  for (int i = 0; i < 5; ++i) serving.post("/v1/completions", completion(i % 2 == 0 ? "red" : "tiny"));
  EXPECT_TRUE(serving.has_nothing_open());  // an answer is counted once it is out
  const auto status = serving.status();
  for (const auto* member : {"version", "base", "uptime_seconds", "is_ready", "connections", "running", "waiting", "pages", "cache",
                             "tokens_per_second", "requests", "adapters", "errors"}) {
    EXPECT_TRUE(status.contains(member)) << member;
  }
  for (const auto* member : {"used", "cached", "free", "rows"}) EXPECT_TRUE(status["pages"].contains(member)) << member;
  EXPECT_EQ(status["requests"], (json{{"finished", 5}, {"failed", 0}, {"cancelled", 0}}));
  EXPECT_EQ(status["adapters"].size(), 3u);
  for (const auto& adapter : status["adapters"]) EXPECT_EQ(adapter["requests"], adapter["name"] == "red" ? 3 : 0) << adapter;
  EXPECT_EQ(status["cache"]["hit_tokens"].get<int>(), static_cast<int>(serving.loop->status().counts.cached_tokens));
  const auto answer = serving.ask("GET", "/metrics");
  EXPECT_EQ(answer.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  double requests = 0;
  std::istringstream lines(answer.body);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_THAT(line, MatchesRegex("(# (HELP|TYPE) [a-z_]+ .+)|([a-z_]+([{][^{}]*[}])? [-+.e0-9]+)"));
    if (line.starts_with("quiver_requests_total{")) requests += std::stod(line.substr(line.rfind(' ')));
  }
  EXPECT_EQ(requests, 5);
  EXPECT_THAT(answer.body, HasSubstr("quiver_generated_tokens_total{model=\"red\"} 18\n"));
  EXPECT_THAT(answer.body, HasSubstr("quiver_adapters 3\n"));
}

TEST(Service, AnEngineThatHangsIsNotReady) {
  auto options = service_options();
  options.stall_seconds = 0.03;
  Gate gate;
  Serving serving(options, [&] { gate.pass(); });
  EXPECT_EQ(serving.ask("GET", "/ready").status, 200);
  http::Client client(serving.server->port());
  client.send(Serving::request("POST", "/v1/completions", completion().dump()));
  EXPECT_TRUE(eventually([&] { return serving.ask("GET", "/ready").status == 503; }));
  EXPECT_EQ(serving.ask("GET", "/health").status, 200);
  EXPECT_FALSE(serving.status()["is_ready"]);
  gate.open();
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(eventually([&] { return serving.ask("GET", "/ready").status == 200; }));
}

}  // namespace
}  // namespace quiver::serve
