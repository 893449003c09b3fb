// A service over fake models and a fake engine, behind a real server.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "quiver/api/test_support.h"
#include "quiver/http/test_support.h"
#include "quiver/serve/fake_models.h"
#include "quiver/serve/service.h"
#include "quiver/serve/test_support.h"

namespace quiver::serve {

/// All of it, running. Members end in the reverse of their order.
struct Serving {
  explicit Serving(ServiceOptions options = service_options(), std::function<void()> on_compute = {})
      : tokenizer(api::golden_tokenizer("smollm")),
        chat("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
             "test", tokenizer),
        engine({.vocab_size = 1500, .context_length = 4096, .num_cache_rows = 64 * 1024}) {
    engine.on_compute = std::move(on_compute);
    options.limits.vocab_size = 1500;
    loop = std::make_unique<EngineLoop>(engine, schedule::SchedulerOptions{.max_sequences = options.max_sequences});
    service = std::make_unique<Service>(models, tokenizer, &chat, *loop, std::move(options));
    server = std::make_unique<http::RunningServer>(service->handlers());
    service->set_connections([this] { return (*server)->counts().num_connections; });
    (*server)->every(std::chrono::milliseconds(5), [this] { service->tick(); });
  }
  ~Serving() { server->stop(); }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  static std::string request(const std::string& method, const std::string& path, const std::string& body = {},
                             const std::string& headers = {}) {
    const auto length = method == "POST" ? "Content-Length: " + std::to_string(body.size()) + "\r\n" : std::string();
    const auto type = method == "POST" && headers.find("Content-Type") == std::string::npos ? "Content-Type: application/json\r\n" : "";
    const auto host = headers.find("Host:") == std::string::npos ? "Host: localhost\r\n" : "";
    return method + " " + path + " HTTP/1.1\r\n" + host + type + length + headers + "\r\n" + body;
  }
  http::Answer ask(const std::string& method, const std::string& path, const std::string& body = {},
                   const std::string& headers = {}) const {
    http::Client client(server->port());
    client.send(request(method, path, body, headers));
    return client.answer(method == "HEAD");
  }
  http::Answer post(const std::string& path, const json& body, const std::string& headers = {}) const {
    return ask("POST", path, body.dump(), headers);
  }
  json status() const { return json::parse(ask("GET", "/v1/quiver/status").body); }
  bool has_nothing_open() const {
    return eventually([this] {
      const auto counts = loop->status().counts;
      return loop->num_open() == 0 && service->is_idle() && counts.num_free_pages + counts.num_cached_pages == counts.num_pages;
    });
  }

  FakeModels models;
  text::Tokenizer tokenizer;
  text::ChatTemplate chat;
  schedule::FakeEngine engine;
  std::unique_ptr<EngineLoop> loop;
  std::unique_ptr<Service> service;
  std::unique_ptr<http::RunningServer> server;
};

/// The data of a stream's events.
inline std::vector<std::string> events_of(const std::string& body) {
  std::vector<std::string> events;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "an event that is not whole";
    if (end == std::string::npos) break;
    const auto event = body.substr(at, end - at);
    if (event.starts_with("data: ")) events.push_back(event.substr(6));
    at = end + 2;
  }
  return events;
}

inline std::string error_of(const http::Answer& answer) {
  const auto error = json::parse(answer.body).at("error");
  return std::to_string(answer.status) + " " + (error["code"].is_null() ? "-" : error["code"].get<std::string>()) + " " +
         (error["param"].is_null() ? "-" : error["param"].get<std::string>()) + ": " + error["message"].get<std::string>();
}

/// A request of so many tokens, greedy, whatever they are.
inline json completion(const std::string& model = "tiny", std::int64_t max_tokens = 6) {
  return {{"model", model}, {"prompt", "Paris is"}, {"max_tokens", max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
}

}  // namespace quiver::serve
