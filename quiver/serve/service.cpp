#include "quiver/serve/service.h"

#include <algorithm>
#include <array>
#include <iterator>
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
#include "quiver/serve/web_assets.h"

namespace quiver::serve {
namespace {

using api::ApiError;
using api::Reason;
using nlohmann::json;

constexpr std::size_t kSmallBody = 64 << 10;
constexpr std::size_t kKeptErrors = 20;

std::int64_t seconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::int64_t drawn_seed() {
  std::random_device device;
  return static_cast<std::int64_t>(device() & 0x7fffffffu);
}

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

/// A request while it is being answered.
struct Service::Call : std::enable_shared_from_this<Call> {
  http::Request request;
  http::ResponderPtr responder;
  std::string id;
  json body = nullptr;            // of a POST, once it is parsed
  std::optional<Resolved> model;  // once it is loaded
};

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
      {"GET", "/metrics", &Service::show_metrics, Where::kHere, Access::kOpen},
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
      {"GET", "/v1/quiver/status", &Service::show_status, Where::kHere},
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

void Service::complete(Call& call) {
  expect_ready();
  const auto request = api::parse_completion(call.body, options_.limits);
  auto generation = request.generation;
  if (!resolve(call, &Service::complete, generation.model, generation.quiver_options)) return;
  if (request.echoes && request.log_probs >= 0 && call.model->decides_by_prompt && generation.quiver_options.context_tokens.empty()) {
    throw ApiError(Reason::kInvalidRequest,
                   format("'{}' decides once per prompt, and would see the text that is scored: say in quiver.context_tokens how many "
                          "tokens of each prompt come before it",
                          generation.model),
                   "quiver.context_tokens");
  }
  api::settle_stops(generation, tokenizer_);
  generation.options.top_log_probs = request.log_probs;
  TaskPlan plan{.head = {.endpoint = api::Endpoint::kCompletions, .top_log_probs = request.log_probs}};
  plan.head.seed = generation.seed.value_or(drawn_seed());
  plan.answer.echoes = request.echoes;
  for (std::size_t p = 0; p < request.prompts.size(); ++p) {
    auto tokens = api::prompt_ids(request.prompts[p], tokenizer_, generation.adds_special_tokens);
    const auto length = api::answer_length(generation, std::ssize(tokens), api::kDefaultCompletionTokens, options_.limits.context_length);
    for (std::int64_t c = 0; c < generation.num_choices; ++c) {
      schedule::Request one{.tokens = tokens, .is_scored = (request.echoes && request.log_probs >= 0) || length == 0};
      one.options = api::choice_options(generation, length, plan.head.seed, static_cast<std::int64_t>(p), c);
      const auto& seen = generation.quiver_options.context_tokens;
      if (!seen.empty()) one.decide_on = seen.size() == 1 ? seen[0] : seen.at(p);
      plan.choices.push_back({std::move(one), static_cast<std::int64_t>(p)});
    }
  }
  call.body = nullptr;
  plan.is_stream = generation.is_stream;
  plan.head.model = generation.model;
  plan.head.returns_token_ids = generation.returns_token_ids;
  plan.head.includes_usage = generation.includes_usage;
  plan.answer.stops = generation.stops;
  plan.answer.skips_special_tokens = generation.skips_special_tokens;
  plan.answer.min_new_tokens = generation.options.min_new_tokens;
  if (!generation.ignored_fields.empty()) plan.headers.emplace_back("X-Quiver-Ignored", api::ignored_header(generation.ignored_fields));
  for (auto& choice : plan.choices) choice.request.cache_salt = generation.cache_salt;
  serve_generation(call, std::move(plan), generation.quiver_options);
}

void Service::chat(Call& call) {
  expect_ready();
  if (chat_template_ == nullptr) throw api::no_chat_template();
  auto request = api::parse_chat(call.body, options_.limits);
  auto& generation = request.generation;
  if (!resolve(call, &Service::chat, generation.model, generation.quiver_options)) return;
  if (!options_.system.empty() && request.messages.front().role != "system") {
    request.messages.insert(request.messages.begin(), {"system", options_.system});
  }
  const auto text = api::render_chat(*chat_template_, request.messages, request.start);
  const auto tokens = api::prompt_ids(text, tokenizer_, generation.adds_special_tokens);
  api::settle_stops(generation, tokenizer_);
  if (!generation.ignores_eos) {
    auto& ids = generation.options.stop_ids;
    for (const auto id : options_.chat_stop_ids) {
      if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
    }
  }
  TaskPlan plan{.head = {.endpoint = api::Endpoint::kChat, .top_log_probs = request.gives_log_probs ? request.top_log_probs : -1}};
  plan.head.seed = generation.seed.value_or(drawn_seed());
  const auto length =
      api::answer_length(generation, std::ssize(tokens), options_.limits.default_max_tokens, options_.limits.context_length);
  for (std::int64_t c = 0; c < generation.num_choices; ++c) {
    schedule::Request one{.tokens = tokens, .is_scored = length == 0, .cache_salt = generation.cache_salt};
    one.options = api::choice_options(generation, length, plan.head.seed, 0, c);
    plan.choices.push_back({std::move(one), 0});
  }
  call.body = nullptr;
  plan.is_stream = generation.is_stream;
  plan.head.model = generation.model;
  plan.head.returns_token_ids = generation.returns_token_ids;
  plan.head.includes_usage = generation.includes_usage;
  plan.answer.stops = generation.stops;
  plan.answer.skips_special_tokens = generation.skips_special_tokens;
  plan.answer.min_new_tokens = generation.options.min_new_tokens;
  if (!generation.ignored_fields.empty()) plan.headers.emplace_back("X-Quiver-Ignored", api::ignored_header(generation.ignored_fields));
  serve_generation(call, std::move(plan), generation.quiver_options);
}

/// The model of a call, now or later: false if it is being loaded, and the call goes on with `again`.
bool Service::resolve(Call& call, Handler again, const std::string& model, const api::QuiverOptions& options) {
  if (call.model) return true;
  call.model = models_.find(model, options);
  if (call.model) return true;
  loader_.post([this, call = call.shared_from_this(), again, model, options] {
    try {
      call->model = models_.load(model, options);
      workers_.post([this, call, again] { run(call, again); });
    } catch (const std::exception& error) {
      answer_error(*call, error);
    }
  });
  return false;
}

void Service::serve_generation(Call& call, TaskPlan plan, const api::QuiverOptions& options) {
  const auto waiting = loop_.num_open() + std::ssize(plan.choices) - options_.max_sequences;
  if (waiting > options_.max_waiting) {
    metrics_.count("quiver_rejected_total", {{"reason", "queue_full"}});
    const auto step = loop_.status().last_step_seconds;
    throw api::retry_later(Reason::kQueueFull, format("{} requests wait already", loop_.num_open()), step * static_cast<double>(waiting));
  }
  if (options.trace == api::Trace::kFull) {
    throw ApiError(Reason::kUnsupportedValue,
                   "routes of every linear map are told by POST /v1/quiver/route; 'quiver.trace' is 'layers' here", "quiver.trace");
  }
  if (options.trace == api::Trace::kLayers) {
    if (call.model->routed.empty()) {
      throw ApiError(Reason::kInvalidRequest, format("'{}' routes nothing: 'quiver.trace' needs a method that does", plan.head.model),
                     "quiver.trace");
    }
    plan.route = {true, call.model->routed, call.model->num_layers, call.model->num_routed_maps};
  }
  const auto key = call.request.header("authorization");
  for (auto& choice : plan.choices) {
    choice.request.assignment = call.model->assignment;
    choice.request.client = key.size() > 8 ? std::string(key) : call.request.peer;
    choice.request.name = "the prompt";
    choice.request.wants_routes = plan.route.is_wanted;
  }
  plan.head.id = (plan.head.endpoint == api::Endpoint::kChat ? "chatcmpl-" : "cmpl-") + call.id.substr(4);
  plan.head.created = seconds_since_epoch();
  plan.request_id = call.id;
  for (auto& header : headers_of(call.id)) plan.headers.push_back(std::move(header));
  const auto slot = std::make_shared<std::weak_ptr<GenerationTask>>();
  const auto endpoint = std::string(call.request.path);
  const auto on_end = [this, slot, endpoint](const GenerationTask::Outcome& outcome) {
    metrics_.count("quiver_requests_total", {{"endpoint", endpoint}, {"model", outcome.model}, {"status", format("{}", outcome.status)}});
    metrics_.count("quiver_prompt_tokens_total", {{"model", outcome.model}, {"source", "cached"}},
                   static_cast<double>(outcome.usage.num_cached_tokens));
    metrics_.count("quiver_prompt_tokens_total", {{"model", outcome.model}, {"source", "computed"}},
                   static_cast<double>(outcome.usage.num_prompt_tokens - outcome.usage.num_cached_tokens));
    metrics_.count("quiver_generated_tokens_total", {{"model", outcome.model}}, static_cast<double>(outcome.usage.num_answer_tokens));
    log(outcome);
    if (!outcome.error.empty()) note_fault(outcome.status, outcome.error, outcome.request_id);
    const std::lock_guard lock(mutex_);
    ++requests_[outcome.model];
    ++(outcome.status == 200 ? finished_ : outcome.error.empty() ? cancelled_ : failed_);
    if (const auto task = slot->lock()) tasks_.erase(task);
  };
  const GenerationTask::Tools tools{tokenizer_, loop_, workers_, metrics_, options_.stream_limits};
  auto task = std::make_shared<GenerationTask>(tools, std::move(plan), call.responder, on_end);
  *slot = task;
  {
    const std::lock_guard lock(mutex_);
    tasks_.insert(task);
  }
  task->start();
}

void Service::log(const GenerationTask::Outcome& outcome) const {
  if (!options_.log) return;
  const json line = {{"id", outcome.request_id},
                     {"model", outcome.model},
                     {"status", outcome.status},
                     {"prompt_tokens", outcome.usage.num_prompt_tokens},
                     {"cached_tokens", outcome.usage.num_cached_tokens},
                     {"completion_tokens", outcome.usage.num_answer_tokens},
                     {"seconds", outcome.seconds},
                     {"seconds_to_first_token", outcome.seconds_to_first}};
  options_.log(line.dump(-1, ' ', false, json::error_handler_t::replace));
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
  const auto held = models_.unload_adapter(request.name);
  metrics_.count("quiver_adapter_changes_total", {{"what", "remove"}});
  if (!request.waits) return send_json(call, json{{"status", "unloaded"}, {"lora_name", request.name}}.dump());
  const std::lock_guard lock(mutex_);
  unloads_.push_back({call.shared_from_this(), held, request.name});
}

/// Answers requests to unload whose adapters nobody uses any more.
void Service::finish_unloads() {
  std::vector<Unload> finished;
  {
    const std::lock_guard lock(mutex_);
    const auto rest =
        std::ranges::partition(unloads_, [](const Unload& one) { return !one.held.expired() && one.call->responder->is_open(); });
    finished.assign(std::make_move_iterator(rest.begin()), std::make_move_iterator(rest.end()));
    unloads_.erase(rest.begin(), rest.end());
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

void Service::health(Call& call) {
  if (call.request.query.contains("ready")) return ready(call);
  send_json(call, R"({"status":"ok"})");
}

void Service::ready(Call& call) {
  expect_ready();
  if (loop_.status().seconds_since_beat > options_.stall_seconds) {
    throw api::retry_later(Reason::kEngineStalled, "the engine makes no steps", 10);
  }
  send_json(call, R"({"status":"ready"})");
}

void Service::show_status(Call& call) {
  const auto status = loop_.status();
  const auto& counts = status.counts;
  const auto now = std::chrono::steady_clock::now();
  json errors = json::array(), adapters = json::array();
  json requests, rates;
  const auto models = models_.list();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& fault : faults_) {
      errors.push_back({{"time", fault.time}, {"status", fault.status}, {"message", fault.message}, {"request", fault.request}});
    }
    for (const auto& model : models) {
      if (model.kind != "adapter" || model.id.starts_with("adapter:")) continue;
      const auto found = requests_.find(model.id);
      adapters.push_back({{"name", model.id},
                          {"bytes", model.bytes},
                          {"requests", found == requests_.end() ? 0 : found->second},
                          {"is_ready", model.is_ready}});
    }
    requests = {{"finished", finished_}, {"failed", failed_}, {"cancelled", cancelled_}};
    const auto rate = [&](std::uint64_t Sample::*count) {
      if (samples_.size() < 2) return 0.0;
      const auto& first = samples_.front();
      const auto& last = samples_.back();
      return static_cast<double>(last.*count - first.*count) / std::chrono::duration<double>(last.time - first.time).count();
    };
    rates = {{"generated", rate(&Sample::generated)}, {"prompt", rate(&Sample::computed)}};
  }
  const json body = {
      {"version", options_.version},
      {"base", options_.base_name},
      {"uptime_seconds", std::chrono::duration<double>(now - start_).count()},
      {"is_ready", !is_draining_ && status.seconds_since_beat <= options_.stall_seconds},
      {"connections", connections_ ? connections_() : 0},
      {"running", counts.num_running},
      {"waiting", counts.num_waiting},
      {"pages",
       {{"used", counts.num_pages - counts.num_free_pages - counts.num_cached_pages},
        {"cached", counts.num_cached_pages},
        {"free", counts.num_free_pages},
        {"rows", options_.page_rows}}},
      {"cache",
       {{"hit_tokens", counts.cached_tokens}, {"prompt_tokens", counts.cached_tokens + counts.computed_tokens - counts.generated_tokens}}},
      {"tokens_per_second", std::move(rates)},
      {"requests", std::move(requests)},
      {"adapters", std::move(adapters)},
      {"can_change_adapters", !options_.admin_key.empty()},
      {"errors", std::move(errors)}};
  send_json(call, io::dump_json(body, "the status"));
}

void Service::show_metrics(Call& call) {
  const auto status = loop_.status();
  const auto& counts = status.counts;
  const auto gauge = [](auto value) { return static_cast<double>(value); };
  std::vector<std::tuple<std::string, Labels, double>> gauges = {
      {"quiver_steps_total", {}, gauge(counts.steps)},
      {"quiver_failed_steps_total", {}, gauge(status.failed_steps)},
      {"quiver_preemptions_total", {}, gauge(counts.preemptions)},
      {"quiver_running", {}, gauge(counts.num_running)},
      {"quiver_waiting", {}, gauge(counts.num_waiting)},
      {"quiver_kv_pages", {{"state", "free"}}, gauge(counts.num_free_pages)},
      {"quiver_kv_pages", {{"state", "cached"}}, gauge(counts.num_cached_pages)},
      {"quiver_kv_pages", {{"state", "used"}}, gauge(counts.num_pages - counts.num_free_pages - counts.num_cached_pages)},
      {"quiver_step_seconds", {}, status.last_step_seconds},
      {"quiver_build_info", {{"version", options_.version}}, 1}};
  gauges.emplace_back("quiver_adapters", Labels{}, gauge(std::ranges::count_if(models_.list(), [](const auto& model) {
                        return model.kind == "adapter" && !model.id.starts_with("adapter:");
                      })));
  if (connections_) gauges.emplace_back("quiver_connections", Labels{}, gauge(connections_()));
  call.responder->send({.status = 200,
                        .body = metrics_.text(gauges),
                        .content_type = "text/plain; version=0.0.4; charset=utf-8",
                        .headers = headers_of(call.id)});
}

void Service::page(Call& call) {
  const auto* file = find_web_file(call.request.path);
  if (file == nullptr || (call.request.method != "GET" && call.request.method != "HEAD")) {
    throw ApiError(Reason::kUnknownPath, format("there is no endpoint '{}'", api::clipped(call.request.path)));
  }
  http::Headers headers = {{"ETag", std::string(file->etag)}, {"Cache-Control", "no-cache"}, {"Vary", "Accept-Encoding"}};
  for (const auto& [name, value] : page_headers()) headers.emplace_back(name, value);
  if (call.request.header("if-none-match") == file->etag) return call.responder->send({.status = 304, .headers = std::move(headers)});
  const bool is_gzipped = call.request.header("accept-encoding").find("gzip") != std::string_view::npos;
  if (is_gzipped) headers.emplace_back("Content-Encoding", "gzip");
  call.responder->send({.status = 200,
                        .body = std::string(is_gzipped ? file->gzip : file->content),
                        .content_type = std::string(file->content_type),
                        .headers = std::move(headers)});
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
