#include "quiver/serve/service.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "quiver/api/chat.h"
#include "quiver/api/completions.h"
#include "quiver/api/json_body.h"
#include "quiver/api/tokenize.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/serve/access.h"
#include "quiver/serve/service_call.h"

namespace quiver::serve {
namespace {

using api::ApiError;
using api::Reason;
using nlohmann::json;

constexpr std::size_t kSmallBody = 64 << 10;
constexpr std::size_t kKeptErrors = 20;

std::string random_hex() {
  std::random_device device;
  constexpr const char* kDigits = "0123456789abcdef";
  std::string hex;
  for (int i = 0; i < 12; ++i) hex += kDigits[device() % 16];
  return hex;
}

http::Response as_response(const ApiError& error, http::Headers headers = {}) {
  headers.insert(headers.end(), error.headers().begin(), error.headers().end());
  return {.status = error.status(), .body = api::error_body(error), .headers = std::move(headers)};
}

}  // namespace

enum class Where { kHere, kWorker };

struct Service::Route {
  const char* method;
  const char* path;
  Handler handler;
  Where where = Where::kWorker;
  Access access = Access::kKey;
  bool is_large = false;  // its body may be as large as max_body_bytes
};

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> table = {
      {"GET", "/health", &Service::health, Where::kHere, Access::kOpen},
      {"GET", "/ready", &Service::ready, Where::kHere, Access::kOpen},
      {"GET", "/metrics", &Service::show_metrics, Where::kWorker, Access::kOpen},
      {"GET", "/v1/models", &Service::list_models},
      {"GET", "/v1/models/", &Service::show_model},
      {"POST", "/v1/completions", &Service::complete, Where::kWorker, Access::kKey, true},
      {"POST", "/v1/chat/completions", &Service::chat, Where::kWorker, Access::kKey, true},
      {"GET", "/tokenizer_info", &Service::tokenizer_info, Where::kWorker, Access::kOpen},
      {"POST", "/tokenize", &Service::tokenize, Where::kWorker, Access::kOpen, true},
      {"POST", "/detokenize", &Service::detokenize, Where::kWorker, Access::kOpen, true},
      {"POST", "/v1/load_lora_adapter", &Service::load_adapter, Where::kWorker, Access::kAdmin},
      {"POST", "/v1/unload_lora_adapter", &Service::unload_adapter, Where::kWorker, Access::kAdmin},
      {"GET", "/v1/quiver/library", &Service::library},
      {"POST", "/v1/quiver/route", &Service::route_text},
      {"GET", "/v1/quiver/status", &Service::show_status},
  };
  return table;
}

Service::Service(Models& models, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template, EngineLoop& loop,
                 ServiceOptions options)
    : models_(models),
      tokenizer_(tokenizer),
      chat_template_(chat_template),
      loop_(loop),
      options_(std::move(options)),
      run_id_(random_hex()),
      start_(std::chrono::steady_clock::now()),
      workers_(2),
      loader_(1) {}

Service::~Service() { loop_.stop(); }  // its events would go to workers that are no more

http::Handlers Service::handlers() {
  http::Handlers handlers;
  handlers.check = [this](const http::RequestHead& head) { return check(head); };
  handlers.body_limit = [this](const http::RequestHead& head) {
    const auto& table = routes();
    const auto found = std::ranges::find_if(table, [&](const Route& route) { return head.path == route.path; });
    return found != table.end() && found->is_large ? options_.max_body_bytes : kSmallBody;
  };
  handlers.handle = [this](http::Request request, http::ResponderPtr responder) { handle(std::move(request), std::move(responder)); };
  handlers.refuse = [this](int status, std::string_view message) {
    if (status == 503) metrics_.count("quiver_rejected_total", {{"reason", "connections"}});
    auto response = as_response(ApiError(api::reason_of_status(status), std::string(message)), headers_of(next_id()));
    response.status = status;
    return response;
  };
  return handlers;
}

namespace {

/// Whether a route's path is that of a request. A path that ends in "/" stands for all that begin so.
bool fits(std::string_view route, std::string_view path) {
  return route == path || (route.size() > 1 && route.ends_with('/') && path.size() > route.size() && path.starts_with(route));
}

}  // namespace

std::optional<http::Response> Service::check(const http::RequestHead& head) {
  try {
    check_host(head, options_.hosts, options_.cors_origin);
    Access access = Access::kOpen;
    for (const auto& route : routes()) {
      if (fits(route.path, head.path)) access = route.access;
    }
    if (head.method != "OPTIONS") check_key(head, access, options_.api_key, options_.admin_key);
  } catch (const ApiError& error) {
    return as_response(error, headers_of(next_id()));
  }
  return std::nullopt;
}

std::string Service::next_id() { return format("req-{}-{}", run_id_, next_request_++); }

http::Headers Service::headers_of(const std::string& id) const {
  http::Headers headers = {{"x-request-id", id}};
  if (!options_.cors_origin.empty()) headers.emplace_back("Access-Control-Allow-Origin", options_.cors_origin);
  return headers;
}

void Service::answer_error(Call& call, const std::exception& error) {
  const auto told = api::api_error_of(error, call.id);
  note_fault(told.status(), told.what(), call.id);
  call.responder->send(as_response(told, headers_of(call.id)));
}

void Service::note_fault(int status, const std::string& message, const std::string& request) {
  const auto now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const std::lock_guard lock(mutex_);
  faults_.push_front({now, status, api::clipped(message), request});
  if (faults_.size() > kKeptErrors) faults_.pop_back();
}

void Service::send_json(Call& call, std::string body) const {
  call.responder->send({.status = 200, .body = std::move(body), .headers = headers_of(call.id)});
}

void Service::handle(http::Request request, http::ResponderPtr responder) {
  auto call = std::make_shared<Call>();
  call->request = std::move(request);
  call->responder = std::move(responder);
  call->id = next_id();
  const auto& path = call->request.path;
  auto method = call->request.method == "HEAD" ? "GET" : call->request.method;
  if (method == "OPTIONS") {
    auto headers = headers_of(call->id);
    headers.emplace_back("Allow", "GET, POST");
    headers.emplace_back("Access-Control-Allow-Methods", "GET, POST");
    headers.emplace_back("Access-Control-Allow-Headers", "Authorization, Content-Type");
    return call->responder->send({.status = 204, .headers = std::move(headers)});
  }
  std::string allowed;
  for (const auto& route : routes()) {
    if (!fits(route.path, path)) continue;
    if (method != route.method) {
      allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    if (route.where == Where::kHere) return run(call, route.handler);
    workers_.post([this, call, handler = route.handler] { run(call, handler); });
    return;
  }
  if (!allowed.empty()) {
    const ApiError error(Reason::kMethodNotAllowed, format("'{}' takes {}, not {}", path, allowed, method), {}, {{"Allow", allowed}});
    return answer_error(*call, error);
  }
  run(call, &Service::page);
}

void Service::run(const std::shared_ptr<Call>& call, Handler handler) {
  try {
    if (call->request.method == "POST" && call->body.is_null()) {
      api::check_content_type(call->request.header("content-type"));
      call->body = api::parse_body(call->request.body);
      call->request.body = {};
    }
    (this->*handler)(*call);
  } catch (const std::exception& error) {
    answer_error(*call, error);
  }
}

void Service::expect_ready() const {
  if (is_draining_) throw api::retry_later(Reason::kShuttingDown, "the server is shutting down", 10);
}

void Service::list_models(Call& call) {
  const auto models = models_.list();
  send_json(call, api::models_body(models));
}

void Service::show_model(Call& call) {
  const auto name = call.request.path.substr(std::string_view("/v1/models/").size());
  std::vector<std::string> served;
  for (const auto& model : models_.list()) {
    if (model.id == name) return send_json(call, api::model_body(model));
    served.push_back(model.id);
  }
  throw api::model_not_found(name, served);
}

void Service::tokenize(Call& call) { send_json(call, api::tokenize_answer(call.body, tokenizer_, chat_template_, options_.limits)); }
void Service::detokenize(Call& call) { send_json(call, api::detokenize_answer(call.body, tokenizer_, options_.limits)); }
void Service::tokenizer_info(Call& call) { send_json(call, api::tokenizer_info(tokenizer_, chat_template_, options_.limits)); }

void Service::load_adapter(Call& call) {
  const auto request = api::parse_load_adapter(call.body, options_.limits.unknown_fields);
  loader_.post([this, call = call.shared_from_this(), request] {
    try {
      models_.load_adapter(request);
      metrics_.count("quiver_adapter_changes_total", {{"what", request.replaces ? "replace" : "add"}});
      send_json(*call, json{{"status", "loaded"}, {"lora_name", request.name}}.dump());
    } catch (const std::exception& error) {
      answer_error(*call, error);
    }
  });
}

void Service::unload_adapter(Call& call) {
  const auto request = api::parse_unload_adapter(call.body, options_.limits.unknown_fields);
  auto in_use = models_.unload_adapter(request.name);
  metrics_.count("quiver_adapter_changes_total", {{"what", "remove"}});
  if (!request.waits) return send_json(call, json{{"status", "unloaded"}, {"lora_name", request.name}}.dump());
  const std::lock_guard lock(mutex_);
  unloads_.push_back({call.shared_from_this(), std::move(in_use), request.name});
}

/// Nobody uses the adapter any more, or nobody waits for it.
bool Service::Unload::is_over() const {
  return std::ranges::all_of(in_use, [](const auto& context) { return context.expired(); }) || !call->responder->is_open();
}

/// Answers requests to unload whose adapters nobody uses any more.
void Service::finish_unloads() {
  std::vector<Unload> finished;
  {
    const std::lock_guard lock(mutex_);
    const auto over = std::partition(unloads_.begin(), unloads_.end(), [](const Unload& one) { return !one.is_over(); });
    finished.assign(std::make_move_iterator(over), std::make_move_iterator(unloads_.end()));
    unloads_.erase(over, unloads_.end());
  }
  for (const auto& one : finished) send_json(*one.call, json{{"status", "unloaded"}, {"lora_name", one.name}}.dump());
}

void Service::library(Call& call) {
  loader_.post([this, call = call.shared_from_this()] {
    try {
      auto body = models_.library();
      {
        const std::lock_guard lock(mutex_);
        for (auto& adapter : body.at("adapters")) {
          const auto found = requests_.find(adapter.at("name").get<std::string>());
          adapter["requests"] = found == requests_.end() ? 0 : found->second;
        }
      }
      send_json(*call, io::dump_json(body, "the library"));
    } catch (const std::exception& error) {
      answer_error(*call, error);
    }
  });
}

void Service::route_text(Call& call) {
  const auto model = io::require_string(call.body, "model", "the request");
  std::vector<std::int32_t> prompt;
  if (call.body.contains("messages")) {
    if (chat_template_ == nullptr) throw api::no_chat_template();
    std::vector<std::string> ignored;
    const auto messages = api::read_messages(call.body.at("messages"), options_.limits.unknown_fields, ignored);
    prompt = api::prompt_ids(api::render_chat(*chat_template_, messages, api::AnswerStart::kNewMessage), tokenizer_, false);
  } else {
    prompt = api::prompt_ids(io::require_string(call.body, "prompt", "the request"), tokenizer_, false);
  }
  if (std::ssize(prompt) > options_.limits.context_length) {
    throw api::context_exceeded(std::ssize(prompt), 0, options_.limits.context_length);
  }
  loader_.post([this, call = call.shared_from_this(), model, prompt = std::move(prompt)] {
    try {
      send_json(*call, io::dump_json(models_.trace(model, {}, prompt), "the trace"));
    } catch (const std::exception& error) {
      answer_error(*call, error);
    }
  });
}

void Service::tick() {
  constexpr std::size_t kSamples = 21;  // two seconds at ten a second
  const auto counts = loop_.status().counts;
  std::vector<std::shared_ptr<GenerationTask>> tasks;
  {
    const std::lock_guard lock(mutex_);
    samples_.push_back({std::chrono::steady_clock::now(), counts.generated_tokens, counts.computed_tokens});
    if (samples_.size() > kSamples) samples_.pop_front();
    tasks.assign(tasks_.begin(), tasks_.end());
  }
  for (const auto& task : tasks) task->tick();
  finish_unloads();
}

void Service::begin_drain() {
  is_draining_ = true;
  loop_.fail_waiting(std::make_exception_ptr(api::retry_later(Reason::kShuttingDown, "the server is shutting down", 10)));
}

void Service::end_all() {
  is_draining_ = true;
  std::vector<std::shared_ptr<GenerationTask>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.assign(tasks_.begin(), tasks_.end());
  }
  const auto error = std::make_exception_ptr(api::retry_later(Reason::kShuttingDown, "the server is shutting down", 10));
  for (const auto& task : tasks) task->fail(error);
}

bool Service::is_idle() const {
  const std::lock_guard lock(mutex_);
  return tasks_.empty();
}

}  // namespace quiver::serve
