#include "quiver/serve/service.h"

#include "quiver/serve/service_test_support.h"
#include "quiver/serve/web_assets.h"

namespace quiver::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

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
