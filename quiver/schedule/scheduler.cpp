#include "quiver/schedule/scheduler.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/schedule/scheduler_plan.h"

namespace quiver::schedule {
namespace {

/// Rows of a pass that has to be short, at least.
constexpr std::int64_t kLeastStepRows = 16;

SchedulerOptions checked(const SchedulerOptions& options) {
  if (options.max_sequences < 1) fail(ErrorKind::kUsage, "max_sequences is {}; expected 1 or more", options.max_sequences);
  if (options.max_step_rows < 1) fail(ErrorKind::kUsage, "max_step_rows is {}; expected 1 or more", options.max_step_rows);
  if (!(options.max_step_seconds >= 0)) {
    fail(ErrorKind::kUsage, "max_step_seconds is {}; expected 0 (no limit) or more", options.max_step_seconds);
  }
  return options;
}

}  // namespace

void check_request(const Request& request, std::int64_t vocab_size, std::int64_t context_length) {
  check_sampler(request.options.sampler);
  const auto least = request.is_scored ? 0 : 1;
  if (request.options.max_new_tokens < least) {
    fail(ErrorKind::kUsage, "max_new_tokens is {}; expected {} or more", request.options.max_new_tokens, least);
  }
  const auto length = num_tokens(request.tokens);
  if (length == 0) fail(ErrorKind::kUsage, "{} has no tokens", request.name);
  if (request.first_scored < 1 || request.first_scored > std::max<std::int64_t>(length - 1, 1)) {
    fail(ErrorKind::kUsage, "{}: first_scored is {}; expected 1 to {}, the last token", request.name, request.first_scored,
         std::max<std::int64_t>(length - 1, 1));
  }
  if (length > context_length || (length == context_length && request.options.max_new_tokens > 0)) {
    fail(ErrorKind::kUsage, "{} has {} tokens; the model's context of {} leaves no room for an answer", request.name, length,
         context_length);
  }
  for (const auto token : request.tokens) {
    if (token >= 0 && token < vocab_size) continue;
    fail(ErrorKind::kMismatch, "{}: token id {} is outside the model's vocabulary of {} (another model's tokenizer?)", request.name, token,
         vocab_size);
  }
}

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options)
    : engine_(engine), options_(checked(options)), pages_(engine.num_cache_rows(), options_.page_rows), tree_(pages_) {}

Scheduler::~Scheduler() = default;

RequestId Scheduler::add(Request request) {
  check_request(request, engine_.vocab_size(), engine_.context_length());
  auto& most = request.options.max_new_tokens;
  most = std::min(most, engine_.context_length() - num_tokens(request.tokens));
  // The last new token is not computed. Prompt and answer may leave a page each that is not full.
  const auto wanted = pages_.pages_for(num_tokens(request.tokens) + std::max<std::int64_t>(most - 1, 0)) + 1;
  if (wanted > pages_.num_pages()) {
    fail(ErrorKind::kUsage, "{} and its answer take {} pages of {} rows of the KV cache, which has {}: allow fewer new tokens or more rows",
         request.name, wanted, pages_.page_rows(), pages_.num_pages());
  }
  const auto id = next_id_++;
  auto sequence = std::make_unique<Sequence>(id, std::move(request));
  queue_.push_back(sequence->request.client, id);
  waiting_.emplace(id, std::move(sequence));
  return id;
}

/// Gives up what a running request holds. What it has computed stays as cache.
void Scheduler::leave(Sequence& sequence) {
  const bool is_kept = options_.keeps_prefixes;
  if (sequence.owns_node) tree_.cut_to_computed(sequence.place.node);
  if (sequence.owns_node && !is_kept) tree_.unlist(sequence.place.node);
  if (is_kept && sequence.computed > 0 && !sequence.is_scored_whole()) {  // else rows without scores would be kept
    tree_.adopt(sequence.key, std::span(sequence.tokens).first(static_cast<std::size_t>(sequence.computed)), sequence.rows);
  }
  if (sequence.place.node != kNoNode) tree_.release(sequence.place.node);
  sequence.place = {};
  sequence.owns_node = false;
  sequence.rows.clear();
  sequence.reserved.clear();
  sequence.leases.clear();
  sequence.computed = 0;
  sequence.prompt_scores.clear();
  sequence.again.reset();
}

void Scheduler::end(RequestId id) {
  const auto found = std::ranges::find(running_, id, [](const auto& one) { return one->id; });
  const auto client = (*found)->request.client;
  leave(**found);
  running_.erase(found);
  const auto is_of_client = [&](const auto& one) { return one->request.client == client; };
  if (std::ranges::none_of(running_, is_of_client)) queue_.forget(client);
}

bool Scheduler::remove(RequestId id) {
  if (const auto found = waiting_.find(id); found != waiting_.end()) {
    const auto client = found->second->request.client;
    queue_.erase(client, id);
    waiting_.erase(found);
    const auto is_of_client = [&](const auto& one) { return one->request.client == client; };
    if (std::ranges::none_of(running_, is_of_client)) queue_.forget(client);
    return true;
  }
  if (std::ranges::find(running_, id, [](const auto& one) { return one->id; }) == running_.end()) return false;
  end(id);
  return true;
}

bool Scheduler::set_paused(RequestId id, bool is_paused) {
  if (const auto found = waiting_.find(id); found != waiting_.end()) {
    found->second->is_paused = is_paused;
    return true;
  }
  const auto found = std::ranges::find(running_, id, [](const auto& one) { return one->id; });
  if (found == running_.end()) return false;
  (*found)->is_paused = is_paused;
  return true;
}

void Scheduler::forget_prefixes() {
  while (tree_.evict_one()) {
  }
}

bool Scheduler::has_work() const {
  return !waiting_.empty() || !events_.empty() || std::ranges::any_of(running_, [](const auto& one) { return !one->is_paused; });
}

SchedulerCounts Scheduler::counts() const {
  auto counts = counts_;
  counts.num_waiting = static_cast<std::int64_t>(waiting_.size());
  counts.num_running = static_cast<std::int64_t>(running_.size());
  counts.num_pages = pages_.num_pages();
  counts.num_free_pages = pages_.num_free();
  counts.num_cached_pages = tree_.num_cached_pages();
  return counts;
}

std::vector<Event> Scheduler::step() {
  using Clock = std::chrono::steady_clock;
  Step step;
  in_last_step_.clear();
  try {
    step.rows_left = step_rows();
    plan_running(step);
    admit(step);
    if (step.segments.empty()) return std::exchange(events_, {});
    std::vector<std::size_t> order(step.segments.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return step.segments[i].assignment; });
    std::vector<Segment> sorted;
    std::vector<std::int64_t> place_of(order.size());
    for (const auto i : order) {
      place_of[i] = static_cast<std::int64_t>(sorted.size());
      sorted.push_back(std::move(step.segments[i]));
    }
    for (auto& query : step.queries) query.segment = place_of[static_cast<std::size_t>(query.segment)];
    const auto start = Clock::now();
    const auto results = engine_.compute(sorted, step.queries);
    const auto rows = step_rows() - step.rows_left;
    const double seconds =
        std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(std::max<std::int64_t>(rows, 1));
    if (rows >= kLeastStepRows) seconds_per_row_ = seconds_per_row_ == 0 ? seconds : 0.8 * seconds_per_row_ + 0.2 * seconds;
    return take(step, results);
  } catch (...) {
    undo(step);
    throw;
  }
}

std::int64_t Scheduler::step_rows() const {
  const bool is_answering = std::ranges::any_of(running_, [](const auto& one) { return one->is_answering() && !one->is_paused; });
  if (!is_answering || options_.max_step_seconds == 0 || seconds_per_row_ == 0) return options_.max_step_rows;
  const auto rows = options_.max_step_seconds / seconds_per_row_;
  return std::min(options_.max_step_rows, std::max(kLeastStepRows, static_cast<std::int64_t>(std::min(rows, 1e9))));
}

/// As before the step.
void Scheduler::undo(Step& step) {
  for (const auto& part : step.parts) {
    const auto& sequence = *part.sequence;
    if (sequence.owns_node && sequence.place.node != kNoNode)
      tree_.set_planned(sequence.place.node, tree_.at(sequence.place.node).computed);
  }
  std::ranges::reverse(step.admitted);  // those that share before those that they share with
  for (auto* sequence : step.admitted) {
    leave(*sequence);
    queue_.push_front(sequence->request.client, sequence->id);
    const auto found = std::ranges::find(running_, sequence, [](const auto& one) { return one.get(); });
    waiting_.emplace(sequence->id, std::move(*found));
    running_.erase(found);
  }
}

std::vector<Event> Scheduler::take(Step& step, std::span<const RowResult> results) {
  auto events = std::exchange(events_, {});
  std::vector<RequestId> ended;
  ++counts_.steps;
  for (const auto& part : step.parts) {
    auto& sequence = *part.sequence;
    for (const auto& run : next_rows(sequence, part.count)) append_rows(sequence.rows, run);
    if (sequence.computed < sequence.place.total) {
      tree_.set_computed(sequence.place.node, sequence.computed + part.count - tree_.at(sequence.place.node).depth);
    } else {
      sequence.reserved = part_of_rows(sequence.reserved, part.count, count_rows(sequence.reserved) - part.count);
    }
    sequence.computed += part.count;
    const auto again = part.count > 0 && sequence.again ? 1 : 0;
    if (again != 0) sequence.again.reset();
    counts_.computed_tokens += static_cast<std::uint64_t>(part.count + again);
    auto event = take_one(sequence, results.subspan(part.first_query, part.num_queries));
    if (event.token >= 0) {
      ++counts_.generated_tokens;
      queue_.charge(sequence.request.client, 1);
    }
    if (event.finish) ended.push_back(sequence.id);
    if (event.token >= 0 || event.finish) events.push_back(std::move(event));
  }
  for (const auto* sequence : step.admitted) counts_.cached_tokens += static_cast<std::uint64_t>(sequence->num_cached);
  for (const auto id : ended) end(id);
  std::ranges::sort(events, {}, &Event::id);
  return events;
}

/// Leaves the scores of the tokens that are computed to those who begin alike.
void Scheduler::keep_scores(const Sequence& sequence) {
  if (!sequence.owns_node) return;
  const auto& node = tree_.at(sequence.place.node);
  for (auto i = std::ssize(node.scores); i < node.computed; ++i) {
    const auto token = node.depth + i;
    tree_.append_score(sequence.place.node, token == 0 ? TokenScore() : sequence.prompt_scores[static_cast<std::size_t>(token - 1)]);
  }
}

/// What a request's part of a pass brings: scores of its prompt, and a token once all is computed.
Event Scheduler::take_one(Sequence& sequence, std::span<const RowResult> results) {
  const auto& options = sequence.request.options;
  Event event{.id = sequence.id, .num_cached = sequence.num_cached};
  const bool is_complete = sequence.num_pending() == 0;
  const bool has_choice = is_complete && options.max_new_tokens > 0;
  if (std::ranges::any_of(results, [](const RowResult& one) { return !one.is_finite; })) {
    event.finish = Finish::kNotFinite;
    return event;
  }
  for (const auto& result : results.first(results.size() - (has_choice ? 1 : 0))) sequence.prompt_scores.push_back(result.score);
  if (sequence.shares_scores()) keep_scores(sequence);
  if (!is_complete) return event;
  if (sequence.has_scores_to_come()) event.prompt = std::move(sequence.prompt_scores);
  sequence.prompt_scores.clear();
  if (!has_choice) {
    event.finish = Finish::kLength;
    return event;
  }
  const auto& result = results.back();
  event.route = result.route;
  const bool may_stop = sequence.num_new() >= options.min_new_tokens;
  const auto banned = may_stop ? std::span<const std::int32_t>() : std::span<const std::int32_t>(options.stop_ids);
  event.token = sequence.sampler.is_plain_greedy() && may_stop ? result.largest : sequence.sampler.choose(result.logits, banned);
  if (options.top_log_probs >= 0) {
    event.score = result.score;
    event.score.token = event.token;
    event.score.log_prob = static_cast<double>(result.logits[static_cast<std::size_t>(event.token)]) - result.log_sum_exp;
  }
  sequence.sampler.count(event.token);
  sequence.tokens.push_back(event.token);
  if (std::ranges::find(options.stop_ids, event.token) != options.stop_ids.end())
    event.finish = Finish::kStopId;
  else if (sequence.num_new() >= options.max_new_tokens)
    event.finish = Finish::kLength;
  return event;
}

}  // namespace quiver::schedule
