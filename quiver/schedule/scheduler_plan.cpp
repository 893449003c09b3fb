// Which rows a pass computes, where they lie, and what is asked of them.
#include "quiver/schedule/scheduler_plan.h"

#include <algorithm>
#include <set>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::schedule {
namespace {

/// A prompt waits for rows that another request is computing if it can share as many more of them.
constexpr std::int64_t kWorthWaiting = 32;

/// A request takes pages ahead, so that its rows lie in few runs.
constexpr std::int64_t kPagesAhead = 4;

}  // namespace

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
    if (sequence.shares_scores()) ask_of_shared(step, sequence);
    plan_chunk(step, sequence);
  }
}

/// The longest beginning of the request's tokens, but the last, whose rows can be read in this pass. Of a prompt that is scored, also the
/// scores are needed: they are known, or the logits that tell them are computed in this very pass.
PrefixPlace Scheduler::shared_place(const Step& step, const Sequence& sequence, bool& is_to_wait) {
  if (!sequence.shares) return {};
  auto most = sequence.tokens.size() - 1;
  if (sequence.has_scores_to_come() && !sequence.is_scored_whole()) most = static_cast<std::size_t>(sequence.request.first_scored - 1);
  const auto found = tree_.find(sequence.key, std::span(sequence.tokens).first(most));
  auto place = tree_.planned(found);
  is_to_wait = found.total - place.total >= kWorthWaiting;
  if (!sequence.shares_scores()) return place;
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
  // What is scored as a whole shares with its like alone, whose scores are known to as many likeliest tokens.
  const auto kind =
      sequence.is_scored_whole() ? format("scored {}/", std::max<std::int64_t>(request.options.top_log_probs, 0)) : std::string();
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
  const auto rest = num_tokens(sequence.tokens) - place.total;
  bool computes_again = sequence.shares_scores() && place.node != kNoNode && !step.segment_of_node.contains(place.node);
  if (place.node != kNoNode) tree_.hold(place.node);
  if (!make_room(pages_.pages_for(rest) + (computes_again ? 2 : 1))) {
    if (place.node != kNoNode) tree_.release(place.node);
    if (!running_.empty() || place.node == kNoNode) return Placed::kNoRoom;
    place = {};  // nothing runs: without sharing there is room
    sequence.shares = computes_again = false;
    if (!make_room(pages_.pages_for(num_tokens(sequence.tokens)) + 1)) return Placed::kNoRoom;
  }
  const auto node = tree_.add(sequence.key, place, std::span(sequence.tokens).subspan(static_cast<std::size_t>(place.total)));
  sequence.rows = tree_.rows_of(place);
  sequence.computed = place.total;
  sequence.num_cached = sequence.shares_scores() ? take_known_scores(step, sequence, place) : place.total;
  if (computes_again) {
    sequence.row_again.clear();
    sequence.again = pages_.take(1, sequence.row_again);
  }
  if (place.node != kNoNode) tree_.release(place.node);  // the new node holds it
  sequence.place = {node, num_tokens(sequence.tokens) - place.total, num_tokens(sequence.tokens)};
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
  auto rows = next_rows(sequence, size), visible = sequence.rows;
  if (again != 0) {
    rows.insert(rows.begin(), sequence.row_again.begin(), sequence.row_again.end());
    visible = part_of_rows(sequence.rows, 0, first);
  }
  step.segments.push_back({sequence.assignment.get(), tokens, first, std::move(rows), std::move(visible)});
  const bool has_part = !step.parts.empty() && step.parts.back().sequence == &sequence;  // of queries of shared rows
  if (!has_part) step.parts.push_back({.sequence = &sequence, .first_query = step.queries.size()});
  step.parts.back().count = size;
  ask(step, sequence, segment, size, again);
  step.parts.back().num_queries = step.queries.size() - step.parts.back().first_query;
  in_last_step_.push_back(sequence.id);
}

/// A segment computes `again + size` rows, the last `size` of them for the first time.
void Scheduler::ask(Step& step, Sequence& sequence, std::int64_t segment, std::int64_t size, std::int64_t again) const {
  const auto& options = sequence.request.options;
  for (std::int64_t row = 0; sequence.has_scores_to_come() && row < again + size; ++row) {
    const auto next = sequence.computed - again + row + 1;
    if (next >= sequence.num_prompt()) break;
    if (next < sequence.request.first_scored) continue;
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

}  // namespace quiver::schedule
