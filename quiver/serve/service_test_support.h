// A service over fake models and a fake engine, behind a real server.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quiver/api/test_support.h"
#include "quiver/http/test_support.h"
#include "quiver/serve/service.h"
#include "quiver/serve/test_support.h"

namespace quiver::serve {

using nlohmann::json;

/// base, two adapters, a method that routes over them, one that decides by prompt, and one that has to be loaded.
class FakeModels : public Models {
 public:
  FakeModels() {
    for (const auto* name : {"tiny", "red", "blue", "arrow", "pooled", "slow"}) names_[name] = assignment_of(name);
  }
  std::vector<api::ModelObject> list() const override {
    const std::lock_guard lock(mutex_);
    std::vector<api::ModelObject> all = {{.id = "tiny", .kind = "base"}};
    for (const auto& [name, assignment] : names_) {
      if (name == "tiny") continue;
      const bool is_method = name == "arrow" || name == "pooled";
      all.push_back({.id = name, .parent = "tiny", .kind = is_method ? "method" : "adapter", .bytes = 100});
    }
    return all;
  }
  std::optional<Resolved> find(const std::string& name, const api::QuiverOptions& options) override {
    if (options.top_k && *options.top_k > 2) throw api::ApiError(api::Reason::kInvalidRequest, "too many", "quiver.top_k");
    const std::lock_guard lock(mutex_);
    if (name == "slow" && !is_slow_loaded_) return std::nullopt;
    return resolved(name);
  }
  Resolved load(const std::string& name, const api::QuiverOptions&) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const std::lock_guard lock(mutex_);
    is_slow_loaded_ = true;
    ++num_loads;
    return resolved(name);
  }
  void load_adapter(const api::LoadAdapterRequest& request) override {
    const std::lock_guard lock(mutex_);
    if (names_.contains(request.name) && !request.replaces) throw api::ApiError(api::Reason::kAdapterExists, "there is one");
    names_[request.name] = assignment_of(request.name + request.path);
  }
  std::weak_ptr<const schedule::Assignment> unload_adapter(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = names_.find(name);
    if (found == names_.end()) throw api::model_not_found(name, {});
    std::weak_ptr<const schedule::Assignment> held = found->second;
    names_.erase(found);
    return held;
  }
  json library() override { return {{"base", "tiny"}, {"adapters", json::array()}}; }
  json trace(const std::string& name, const api::QuiverOptions&, const std::vector<std::int32_t>& prompt) override {
    return {{"model", name}, {"tokens", prompt}};
  }

  std::atomic<int> num_loads{0};

 private:
  Resolved resolved(const std::string& name) {
    const auto found = names_.find(name);
    if (found == names_.end()) throw api::model_not_found(name, {"tiny", "red"});
    Resolved model{.assignment = found->second, .decides_by_prompt = name == "pooled"};
    if (name == "arrow") model.routed = {"red", "blue"}, model.num_layers = 2, model.num_routed_maps = 8;
    return model;
  }
  mutable std::mutex mutex_;
  std::map<std::string, schedule::AssignmentPtr> names_;
  bool is_slow_loaded_ = false;
};

inline ServiceOptions service_options() {
  ServiceOptions options;
  options.base_name = "tiny";
  options.limits.vocab_size = 1500;
  options.limits.context_length = 4096;
  options.version = "1.2";
  options.max_sequences = 8;
  return options;
}

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
