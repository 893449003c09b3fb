#include "quiver/schedule/scheduler.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::schedule {
namespace {

/// A prompt waits for rows that another request is computing if it can share as many more of them.
constexpr std::int64_t kWorthWaiting = 32;

/// A request takes pages ahead, so that its rows lie in few runs.
constexpr std::int64_t kPagesAhead = 4;

/// Rows of a pass that has to be short, at least.
constexpr std::int64_t kLeastStepRows = 16;

std::int64_t count(const std::vector<std::int32_t>& tokens) { return static_cast<std::int64_t>(tokens.size()); }

SchedulerOptions checked(const SchedulerOptions& options) {
  if (options.max_sequences < 1) fail(ErrorKind::kUsage, "max_sequences is {}; expected 1 or more", options.max_sequences);
  if (options.max_step_rows < 1) fail(ErrorKind::kUsage, "max_step_rows is {}; expected 1 or more", options.max_step_rows);
  if (!(options.max_step_seconds >= 0)) {
    fail(ErrorKind::kUsage, "max_step_seconds is {}; expected 0 (no limit) or more", options.max_step_seconds);
  }
  return options;
}

}  // namespace

struct Scheduler::Sequence {
  Sequence(RequestId i, Request r)
      : id(i), request(std::move(r)), sampler(request.options.sampler, request.tokens), tokens(request.tokens) {}

  RequestId id;
  Request request;
  Sampler sampler;
  AssignmentPtr assignment;          // as decided; null before
  std::string key;                   // of its tree
  std::vector<std::int32_t> tokens;  // the prompt and what was chosen
  bool is_paused = false;
  bool shares = true;

  // Where it stands; nothing of it while it waits.
  PrefixPlace place;              // the end of what it has in the tree
  bool owns_node = false;         // the place's node is of its own tokens
  std::vector<RowSpan> rows;      // of the tokens that are computed
  std::int64_t computed = 0;      // tokens
  std::vector<RowSpan> reserved;  // for tokens to come, beyond the tree
  std::vector<PageLease> leases;  // of rows beyond the tree
  std::int64_t num_cached = 0;
  std::vector<TokenScore> prompt_scores;  // of the second token and those after it
  std::optional<PageLease> again;         // of the row before its own tokens, which is computed once more for its logits
  std::vector<RowSpan> row_again;

  std::int64_t num_prompt() const { return count(request.tokens); }
  std::int64_t num_new() const { return count(tokens) - num_prompt(); }
  std::int64_t num_pending() const { return count(tokens) - computed; }
  bool is_answering() const { return num_new() > 0 && num_pending() == 1; }
  bool has_scores_to_come() const { return request.is_scored && num_new() == 0; }
};

/// A pass that is being planned.
struct Scheduler::Step {
  struct Part {
    Sequence* sequence = nullptr;
    std::int64_t count = 0;  // tokens, without the one that is computed again
    std::size_t first_query = 0, num_queries = 0;
  };
  std::int64_t rows_left = 0;
  std::vector<Segment> segments;
  std::vector<Query> queries;
  std::vector<Part> parts;  // one for each segment
  std::vector<Sequence*> admitted;
  struct NodeSegment {
    std::int64_t index = 0;
    std::int64_t position = 0;  // of its first row
  };
  std::unordered_map<NodeId, NodeSegment> segment_of_node;  // of nodes whose first token is computed now
};

void check_request(const Request& request, std::int64_t vocab_size, std::int64_t context_length) {
  check_sampler(request.options.sampler);
  const auto least = request.is_scored ? 0 : 1;
  if (request.options.max_new_tokens < least) {
    fail(ErrorKind::kUsage, "max_new_tokens is {}; expected {} or more", request.options.max_new_tokens, least);
  }
  const auto length = count(request.tokens);
  if (length == 0) fail(ErrorKind::kUsage, "{} has no tokens", request.name);
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
  most = std::min(most, engine_.context_length() - count(request.tokens));
  // The last new token is not computed. Prompt and answer may leave a page each that is not full.
  const auto wanted = pages_.pages_for(count(request.tokens) + std::max<std::int64_t>(most - 1, 0)) + 1;
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
  if (is_kept && sequence.computed > 0 && !sequence.request.is_scored) {  // else rows without scores would be kept
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

/// The next token of all that answer, then prompts in the order in which they joined.
void Scheduler::plan_running(Step& step) {
  for (std::size_t i = 0; i < running_.size(); ++i) {
    auto& sequence = *running_[i];
    if (!sequence.is_answering() || sequence.is_paused) continue;
    while (i < running_.size() && !grow(sequence)) preempt_last();  // perhaps the request itself
    if (i < running_.size()) plan_chunk(step, sequence);
  }
  for (const auto& sequence : running_) {
    if (!sequence->is_answering() && !sequence->is_paused) plan_chunk(step, *sequence);
  }
}

/// Pages for the next token of an answer. False if there are none.
bool Scheduler::grow(Sequence& sequence) {
  const auto in_tree = sequence.place.total;
  if (sequence.computed < in_tree || !sequence.reserved.empty()) return true;
  const auto rows_to_come = sequence.request.options.max_new_tokens - sequence.num_new();
  const auto wanted = std::clamp<std::int64_t>(pages_.pages_for(rows_to_come), 1, kPagesAhead);
  if (!make_room(wanted) && !make_room(1)) return false;
  const auto rows = std::min(wanted, pages_.num_free()) * pages_.page_rows();
  sequence.leases.push_back(pages_.take(rows, sequence.reserved));
  return true;
}

bool Scheduler::make_room(std::int64_t num_pages) {
  while (pages_.num_free() < num_pages && tree_.evict_one()) {
  }
  return pages_.num_free() >= num_pages;
}

/// The request that joined last waits again, before all others of its client.
void Scheduler::preempt_last() {
  auto sequence = std::move(running_.back());
  running_.pop_back();
  leave(*sequence);
  if (running_.empty()) sequence->shares = false;  // rows that are shared in part may fill the cache
  queue_.push_front(sequence->request.client, sequence->id);
  const auto id = sequence->id;
  waiting_.emplace(id, std::move(sequence));
  ++counts_.preemptions;
}

void Scheduler::admit(Step& step) {
  std::set<RequestId> passed;
  while (step.rows_left > 0 && static_cast<std::int64_t>(running_.size()) < options_.max_sequences) {
    const auto id = queue_.next(passed);
    if (!id) return;
    auto& sequence = *waiting_.at(*id);
    if (sequence.is_paused) {
      passed.insert(*id);
      continue;
    }
    switch (place(step, sequence)) {
      case Placed::kNoRoom: return;
      case Placed::kLater: passed.insert(*id); continue;
      case Placed::kFailed: remove(*id); continue;
      case Placed::kYes: break;
    }
    queue_.erase(sequence.request.client, *id);
    queue_.charge(sequence.request.client, sequence.num_pending());
    step.admitted.push_back(&sequence);
    running_.push_back(std::move(waiting_.extract(*id).mapped()));
    if (sequence.has_scores_to_come()) ask_of_shared(step, sequence);
    plan_chunk(step, sequence);
  }
}

/// The longest beginning of the request's tokens, but the last, whose rows can be read in this pass. Of a prompt that is scored, also the
/// scores are needed: they are known, or the logits that tell them are computed in this very pass.
PrefixPlace Scheduler::shared_place(const Step& step, const Sequence& sequence, bool& is_to_wait) {
  if (!sequence.shares) return {};
  const auto found = tree_.find(sequence.key, std::span(sequence.tokens).first(sequence.tokens.size() - 1));
  auto place = tree_.planned(found);
  is_to_wait = found.total - place.total >= kWorthWaiting;
  if (!sequence.has_scores_to_come()) return place;
  PrefixPlace last;
  for (const auto& part : tree_.path_to(place)) {
    const auto& node = tree_.at(part.node);
    const bool is_of_this_pass = step.segment_of_node.contains(part.node);
    const auto length = is_of_this_pass ? part.length : std::min(part.length, static_cast<std::int64_t>(node.scores.size()));
    if (length > 0) last = {part.node, length, node.depth + length};
    if (length < part.length) break;
  }
  return last;
}

/// Which adapters compute the request; once for all.
void Scheduler::decide(Sequence& sequence) {
  const auto& request = sequence.request;
  const auto all = std::span<const std::int32_t>(request.tokens);
  const auto seen = request.decide_on == 0 ? all : all.first(std::min(all.size(), static_cast<std::size_t>(request.decide_on)));
  auto assignment = request.assignment == nullptr ? std::make_shared<const Assignment>() : engine_.decide(request.assignment, seen);
  // What is scored shares with its like alone, whose scores are known to as many likeliest tokens.
  const auto kind = request.is_scored ? format("scored {}/", std::max<std::int64_t>(request.options.top_log_probs, 0)) : std::string();
  sequence.key = kind + assignment->key + "/" + request.cache_salt;
  sequence.assignment = std::move(assignment);
}

Scheduler::Placed Scheduler::place(Step& step, Sequence& sequence) {
  if (sequence.assignment == nullptr) {
    try {
      decide(sequence);
    } catch (...) {
      events_.push_back({.id = sequence.id, .finish = Finish::kError, .error = std::current_exception()});
      return Placed::kFailed;
    }
  }
  bool is_to_wait = false;
  auto place = shared_place(step, sequence, is_to_wait);
  if (is_to_wait) return Placed::kLater;
  const auto rest = count(sequence.tokens) - place.total;
  bool computes_again = sequence.has_scores_to_come() && place.node != kNoNode && !step.segment_of_node.contains(place.node);
  if (place.node != kNoNode) tree_.hold(place.node);
  if (!make_room(pages_.pages_for(rest) + (computes_again ? 2 : 1))) {
    if (place.node != kNoNode) tree_.release(place.node);
    if (!running_.empty() || place.node == kNoNode) return Placed::kNoRoom;
    place = {};  // nothing runs: without sharing there is room
    sequence.shares = computes_again = false;
    if (!make_room(pages_.pages_for(count(sequence.tokens)) + 1)) return Placed::kNoRoom;
  }
  const auto node = tree_.add(sequence.key, place, std::span(sequence.tokens).subspan(static_cast<std::size_t>(place.total)));
  sequence.rows = tree_.rows_of(place);
  sequence.computed = place.total;
  sequence.num_cached = sequence.has_scores_to_come() ? take_known_scores(step, sequence, place) : place.total;
  if (computes_again) {
    sequence.row_again.clear();
    sequence.again = pages_.take(1, sequence.row_again);
  }
  if (place.node != kNoNode) tree_.release(place.node);  // the new node holds it
  sequence.place = {node, count(sequence.tokens) - place.total, count(sequence.tokens)};
  sequence.owns_node = true;
  return Placed::kYes;
}

/// Gives a request the scores that its place's nodes have. Returns how many of its tokens' rows were there before this pass.
std::int64_t Scheduler::take_known_scores(const Step& step, Sequence& sequence, PrefixPlace place) const {
  std::int64_t num_cached = 0;
  for (const auto& part : tree_.path_to(place)) {
    if (step.segment_of_node.contains(part.node)) return num_cached;
    const auto& node = tree_.at(part.node);
    for (std::int64_t i = node.depth == 0 ? 1 : 0; i < part.length; ++i)
      sequence.prompt_scores.push_back(node.scores[static_cast<std::size_t>(i)]);
    num_cached = part.total;
  }
  return std::max<std::int64_t>(num_cached - 1, 0);  // the last is computed again
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

/// Where the next tokens that are to be computed go.
std::vector<RowSpan> Scheduler::next_rows(const Sequence& sequence, std::int64_t size) const {
  if (sequence.computed >= sequence.place.total) return part_of_rows(sequence.reserved, 0, size);
  const auto& node = tree_.at(sequence.place.node);
  return part_of_rows(node.rows, sequence.computed - node.depth, size);
}

/// As many of the tokens that are to be computed as there are rows left in the pass.
void Scheduler::plan_chunk(Step& step, Sequence& sequence) {
  const std::int64_t again = sequence.again ? 1 : 0;
  const bool has_room = step.rows_left > 0 || sequence.is_answering();  // for a token, and the row that is computed again
  const auto size = std::min(sequence.num_pending(), std::max<std::int64_t>(step.rows_left - again, has_room ? 1 : 0));
  if (size <= 0) return;
  step.rows_left -= size + again;
  const auto segment = static_cast<std::int64_t>(step.segments.size());
  const auto in_tree = sequence.place.total;
  if (sequence.computed < in_tree) {
    const auto offset = sequence.computed - tree_.at(sequence.place.node).depth;
    tree_.set_planned(sequence.place.node, offset + size);
    if (offset == 0) step.segment_of_node.emplace(sequence.place.node, Step::NodeSegment{segment, sequence.computed - again});
  }
  const auto first = sequence.computed - again;
  const auto tokens =
      std::span<const std::int32_t>(sequence.tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(size + again));
  auto rows = again != 0 ? sequence.row_again : std::vector<RowSpan>();
  for (const auto& run : next_rows(sequence, size)) append_rows(rows, run);
  step.segments.push_back({sequence.assignment.get(), tokens, first, std::move(rows), part_of_rows(sequence.rows, 0, first)});
  const bool has_part = !step.parts.empty() && step.parts.back().sequence == &sequence;  // of queries of shared rows
  if (!has_part) step.parts.push_back({.sequence = &sequence, .first_query = step.queries.size()});
  step.parts.back().count = size;
  ask(step, sequence, segment, size, again);
  step.parts.back().num_queries = step.queries.size() - step.parts.back().first_query;
  in_last_step_.push_back(sequence.id);
}

/// Of `again + size` rows that a segment computes, the last `size` for the first time.
void Scheduler::ask(Step& step, Sequence& sequence, std::int64_t segment, std::int64_t size, std::int64_t again) const {
  const auto& options = sequence.request.options;
  for (std::int64_t row = 0; sequence.has_scores_to_come() && row < again + size; ++row) {
    const auto next = sequence.computed - again + row + 1;
    if (next >= sequence.num_prompt()) break;
    const auto top = std::max<std::int64_t>(options.top_log_probs, 0);
    step.queries.push_back({segment, row, sequence.tokens[static_cast<std::size_t>(next)], top});
  }
  if (size < sequence.num_pending() || options.max_new_tokens == 0) return;
  const bool wants_logits =
      !sequence.sampler.is_plain_greedy() || sequence.num_new() < options.min_new_tokens || options.top_log_probs >= 0;
  step.queries.push_back({segment, again + size - 1, -1, options.top_log_probs, wants_logits, sequence.request.wants_routes});
}

/// The scores of a prompt's tokens whose rows others compute in this pass.
void Scheduler::ask_of_shared(Step& step, Sequence& sequence) const {
  const auto& own = tree_.at(sequence.place.node);
  step.parts.push_back({.sequence = &sequence, .first_query = step.queries.size()});
  if (own.parent == kNoNode) return;
  const auto top = std::max<std::int64_t>(sequence.request.options.top_log_probs, 0);
  for (const auto& part : tree_.path_to({own.parent, own.branch, own.depth})) {
    const auto found = step.segment_of_node.find(part.node);
    if (found == step.segment_of_node.end()) continue;  // its scores are known
    const auto& [segment, position] = found->second;
    for (auto at = position; at < part.total; ++at) {
      step.queries.push_back({segment, at - position, sequence.tokens[static_cast<std::size_t>(at + 1)], top});
    }
  }
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
  if (sequence.has_scores_to_come()) keep_scores(sequence);
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
