// The endpoints that generate: completions and chats, from a body to a task.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "quiver/api/chat.h"
#include "quiver/api/completions.h"
#include "quiver/base/error.h"
#include "quiver/serve/service_call.h"

namespace quiver::serve {
namespace {

using api::ApiError;
using api::Reason;
using nlohmann::json;

std::int64_t seconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::int64_t drawn_seed() {
  std::random_device device;
  return static_cast<std::int64_t>(device() & 0x7fffffffu);
}

/// What the answers to completions and chats have in common.
void settle_answer(TaskPlan& plan, const api::Generation& generation) {
  plan.is_stream = generation.is_stream;
  plan.head.model = generation.model;
  plan.head.returns_token_ids = generation.returns_token_ids;
  plan.head.includes_usage = generation.includes_usage;
  plan.answer.stops = generation.stops;
  plan.answer.skips_special_tokens = generation.skips_special_tokens;
  plan.answer.min_new_tokens = generation.options.min_new_tokens;
  if (!generation.ignored_fields.empty()) plan.headers.emplace_back("X-Quiver-Ignored", api::ignored_header(generation.ignored_fields));
}

}  // namespace

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
  settle_answer(plan, generation);
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
  settle_answer(plan, generation);
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

}  // namespace quiver::serve
