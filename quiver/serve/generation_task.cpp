#include "quiver/serve/generation_task.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/serve/route_json.h"

namespace quiver::serve {
namespace {

constexpr int kClientGone = 499;

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

GenerationTask::GenerationTask(Tools tools, TaskPlan plan, http::ResponderPtr responder, OnEnd on_end)
    : tools_(tools), plan_(std::move(plan)), responder_(std::move(responder)), on_end_(std::move(on_end)), start_(Clock::now()) {
  last_write_ = paused_since_ = start_;
  std::int64_t num_prompts = 0;
  for (const auto& choice : plan_.choices) {
    choices_.emplace_back(api::Answer(tools_.tokenizer, choice.request.tokens, plan_.answer));
    num_prompts = std::max(num_prompts, choice.prompt_index + 1);
  }
  cached_.assign(static_cast<std::size_t>(num_prompts), 0);
}

void GenerationTask::start() {
  const std::weak_ptr<GenerationTask> weak = weak_from_this();
  responder_->on_gone([weak] {
    if (const auto self = weak.lock()) {
      const std::lock_guard lock(self->mutex_);
      self->give_up(nullptr, kClientGone);
    }
  });
  const std::lock_guard lock(mutex_);
  if (is_over_) return;
  if (plan_.is_stream) {
    auto headers = plan_.headers;
    for (auto& header : api::stream_headers()) headers.push_back(std::move(header));
    has_begun_ = true;
    responder_->begin_stream(200, api::kStreamContentType, std::move(headers));
    std::string opening;
    for (std::size_t i = 0; i < choices_.size(); ++i) {
      const auto& prompt = plan_.choices[i].request.tokens;
      opening +=
          api::first_event(plan_.head, static_cast<std::int64_t>(i), plan_.head.returns_token_ids ? prompt : std::vector<std::int32_t>());
    }
    if (!opening.empty()) write(std::move(opening));
  }
  std::vector<Submission> submissions;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    submissions.push_back({plan_.choices[i].request, [weak, i](schedule::Event event) {
                             if (const auto self = weak.lock()) self->arrive(i, std::move(event));
                           }});
  }
  const auto tickets = tools_.loop.submit(std::move(submissions));
  for (std::size_t i = 0; i < choices_.size(); ++i) choices_[i].ticket = tickets[i];
}

/// On the engine's thread.
void GenerationTask::arrive(std::size_t choice, schedule::Event event) {
  const std::lock_guard lock(queue_mutex_);
  arrivals_.push_back({choice, std::move(event)});
  if (is_working_) return;
  is_working_ = true;
  tools_.workers.post([self = shared_from_this()] { self->work(); });
}

void GenerationTask::work() {
  while (true) {
    std::deque<Arrival> arrivals;
    {
      const std::lock_guard lock(queue_mutex_);
      if (arrivals_.empty()) {
        is_working_ = false;
        return;
      }
      arrivals.swap(arrivals_);
    }
    const std::lock_guard lock(mutex_);
    for (auto& arrival : arrivals) {
      if (is_over_) break;
      try {
        take(arrival);
      } catch (...) {
        give_up(std::current_exception(), 0);
      }
    }
  }
}

void GenerationTask::take(Arrival& arrival) {
  auto& [index, event] = arrival;
  auto& choice = choices_[index];
  if (event.error != nullptr) std::rethrow_exception(event.error);
  if (choice.has_ended) return;
  const auto now = Clock::now();
  if (!has_first_) {
    has_first_ = true;
    seconds_to_first_ = seconds_between(start_, now);
    tools_.metrics.observe("quiver_time_to_first_token_seconds", seconds_to_first_);
  } else if (choice.has_started) {
    tools_.metrics.observe("quiver_token_gap_seconds", seconds_between(choice.last_token, now));
  }
  choice.last_token = now;
  auto& cached = cached_[static_cast<std::size_t>(plan_.choices[index].prompt_index)];
  cached = std::max(cached, event.num_cached);
  api::Delta delta;
  if (!choice.has_started) start_choice(index, std::move(event.prompt), delta);
  if (event.token >= 0) {
    if (plan_.route.is_wanted) choice.routes.push_back(std::move(event.route));
    std::optional<schedule::TokenScore> score;
    if (plan_.head.top_log_probs >= 0) score = std::move(event.score);
    append(delta, choice.answer.push(event.token, std::move(score), event.finish));
  } else if (event.finish) {
    append(delta, choice.answer.end(*event.finish));
  }
  if (choice.answer.is_ended()) {
    choice.has_ended = true;
    ++num_ended_;
    if (!event.finish) tools_.loop.cancel(choice.ticket);  // a stop string
  }
  deliver(index, std::move(delta));
  if (num_ended_ == choices_.size()) complete();
}

void GenerationTask::start_choice(std::size_t index, std::vector<schedule::TokenScore> prompt_scores, api::Delta& delta) {
  choices_[index].has_started = true;
  append(delta, choices_[index].answer.start(std::move(prompt_scores)));
}

void GenerationTask::deliver(std::size_t index, api::Delta delta) {
  auto& choice = choices_[index];
  if (!plan_.is_stream) {
    append(choice.whole, std::move(delta));
    return;
  }
  api::Choice told{.index = static_cast<std::int64_t>(index)};
  if (plan_.route.is_wanted) told.quiver_members = routes_of(choice, delta);
  told.delta = std::move(delta);
  auto text = api::delta_event(plan_.head, told, tools_.tokenizer);
  if (!text.empty()) write(std::move(text));
}

/// The routes of the tokens that came with a delta, each with its part of the text.
std::string GenerationTask::routes_of(Choice& choice, const api::Delta& delta) const {
  std::vector<std::vector<schedule::LayerRoute>> routes;
  std::vector<std::string> texts;
  const auto first = choice.num_routed;
  auto rest = std::string_view(delta.text);
  auto place = choice.num_characters;
  const auto take_text = [&](std::int64_t end) {  // up to a character of the answer
    std::string text;
    while (place < end && !rest.empty()) {
      const auto size = static_cast<std::size_t>(code_point_at(rest, 0).num_bytes);
      text += rest.substr(0, size);
      rest.remove_prefix(size);
      ++place;
    }
    return text;
  };
  for (std::size_t i = 0; i < delta.tokens.size(); ++i) {
    const bool is_last = i + 1 == delta.tokens.size();
    auto text = is_last ? std::string(rest) : take_text(delta.tokens[i + 1].text_offset);
    if (delta.tokens[i].is_prompt) continue;  // of an echo
    if (choice.routes.empty()) break;
    routes.push_back(std::move(choice.routes.front()));
    choice.routes.pop_front();
    texts.push_back(std::move(text));
  }
  choice.num_characters += count_code_points(delta.text);
  choice.num_routed += std::ssize(routes);
  if (routes.empty()) return {};
  const auto& plan = plan_.route;
  auto members = first == 0 ? route_header(plan.adapters, plan.num_layers, plan.num_maps) + "," : std::string();
  return members + route_member(first, routes, texts, plan.num_layers, has_wide_ids(plan.adapters.size()));
}

void GenerationTask::write(std::string text) {
  last_write_ = Clock::now();
  responder_->write(std::move(text));
}

api::Usage GenerationTask::usage() const {
  api::Usage usage;
  std::int64_t last_prompt = -1;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const auto& plan = plan_.choices[i];
    usage.num_answer_tokens += choices_[i].answer.num_tokens();
    if (plan.prompt_index == last_prompt) continue;
    last_prompt = plan.prompt_index;
    usage.num_prompt_tokens += std::ssize(plan.request.tokens);
    usage.num_cached_tokens += cached_[static_cast<std::size_t>(plan.prompt_index)];
  }
  return usage;
}

void GenerationTask::complete() {
  if (plan_.is_stream) {
    write(api::usage_event(plan_.head, usage()) + api::kDoneEvent);
    responder_->end();
    return end(200);
  }
  std::vector<api::Choice> told;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    told.push_back({.index = static_cast<std::int64_t>(i)});
    if (plan_.route.is_wanted) told.back().quiver_members = routes_of(choices_[i], choices_[i].whole);
    told.back().delta = std::move(choices_[i].whole);
    if (plan_.head.returns_token_ids) told.back().prompt_ids = plan_.choices[i].request.tokens;
  }
  auto headers = plan_.headers;
  headers.emplace_back("openai-processing-ms", format("{}", static_cast<std::int64_t>(1000 * seconds_between(start_, Clock::now()))));
  responder_->send({.status = 200, .body = api::answer_body(plan_.head, told, usage(), tools_.tokenizer), .headers = std::move(headers)});
  end(200);
}

void GenerationTask::fail(const std::exception_ptr& error) {
  const std::lock_guard lock(mutex_);
  give_up(error, 0);
}

/// Ends the request early. `status` counts where there is no error to tell.
void GenerationTask::give_up(const std::exception_ptr& error, int status) {
  if (is_over_) return;
  cancel_all();
  std::string message;
  if (error != nullptr) {
    const auto told = [&] {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& e) {
        return api::api_error_of(e, plan_.request_id);
      }
    }();
    status = told.status();
    message = told.what();
    if (has_begun_) {
      write(api::error_event(told));
      responder_->end();
    } else {
      auto headers = plan_.headers;
      headers.insert(headers.end(), told.headers().begin(), told.headers().end());
      responder_->send({.status = status, .body = api::error_body(told), .headers = std::move(headers)});
    }
  }
  end(status, std::move(message));
}

void GenerationTask::cancel_all() {
  for (const auto& choice : choices_) {
    if (choice.ticket != 0 && !choice.has_ended) tools_.loop.cancel(choice.ticket);
  }
}

void GenerationTask::end(int status, std::string error) {
  is_over_ = true;
  if (status == kClientGone) tools_.metrics.count("quiver_cancelled_total", {{"reason", "client_gone"}});
  const auto seconds = seconds_between(start_, Clock::now());
  tools_.metrics.observe("quiver_request_seconds", seconds);
  on_end_({plan_.request_id, plan_.head.model, status, std::move(error), usage(), seconds, seconds_to_first_});
}

void GenerationTask::tick() {
  const std::lock_guard lock(mutex_);
  if (is_over_) return;
  const auto now = Clock::now();
  const auto& limits = tools_.limits;
  if (!has_first_ && now - start_ > limits.queue_timeout) {
    const api::ApiError error = api::retry_later(api::Reason::kQueueTimeout, "the request has waited too long for its turn", 10);
    tools_.metrics.count("quiver_rejected_total", {{"reason", "queue_timeout"}});
    return give_up(std::make_exception_ptr(error), 0);
  }
  if (!has_begun_) return;
  const auto unread = responder_->pending_bytes();
  if (!is_paused_ && unread > limits.most_unread_bytes) {
    is_paused_ = true;
    paused_since_ = now;
    for (const auto& choice : choices_) tools_.loop.set_paused(choice.ticket, true);
  } else if (is_paused_ && unread < limits.most_unread_bytes / 4) {
    is_paused_ = false;
    for (const auto& choice : choices_) tools_.loop.set_paused(choice.ticket, false);
  } else if (is_paused_ && now - paused_since_ > limits.unread_timeout) {
    tools_.metrics.count("quiver_cancelled_total", {{"reason", "slow_reader"}});
    return give_up(std::make_exception_ptr(api::ApiError(api::Reason::kBodyTimeout, "the answer is not being read")), 0);
  }
  if (now - last_write_ > limits.ping_interval && unread == 0) write(api::kPingEvent);
}

}  // namespace quiver::serve
