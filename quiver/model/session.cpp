#include "quiver/model/session.h"

#include <torch/utils.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

/// Fewer common tokens are computed again: rows that read the cache take a kernel that goes query by query.
constexpr std::int64_t kLeastShared = 16;

/// Queries of a block over the cache. Threads share out the blocks.
constexpr std::int64_t kBlockRows = 16;

std::int32_t group_of(const Request& request) { return request.assignment == nullptr ? 0 : *request.assignment; }

std::int64_t most_new_tokens(const Model& model, const Request& request) {
  return std::min(request.options.max_new_tokens, model.spec().max_positions - static_cast<std::int64_t>(request.tokens.size()));
}

SessionOptions checked(const Model& model, SessionOptions options) {
  if (options.max_batch < 1) fail(ErrorKind::kUsage, "max_batch is {}; expected 1 or more", options.max_batch);
  // A prompt and its answer may leave a page each that is not full.
  if (options.cache_rows == 0) options.cache_rows = model.spec().max_positions + 2 * options.page_rows;
  return options;
}

/// Adds queries from row `first_query` of the batch on, whose keys are the rows `own` of the cache, and which see all of `visible`, too.
void add_blocks(backend::AttentionPlan& plan, std::int64_t first_query, const std::vector<RowSpan>& own, std::vector<RowSpan> visible) {
  const auto num_own = count_rows(own);
  for (std::int64_t done = 0; done < num_own;) {
    const auto part = part_of_rows(own, done, kBlockRows).front();
    backend::AttentionBlock block{.first_query = first_query + done, .first_key = part.first, .length = part.length};
    block.spans_begin = static_cast<std::int64_t>(plan.spans.size());
    plan.spans.insert(plan.spans.end(), visible.begin(), visible.end());
    block.spans_end = static_cast<std::int64_t>(plan.spans.size());
    block.num_visible = count_rows(visible);
    plan.blocks.push_back(block);
    append_rows(visible, part);
    done += part.length;
  }
}

/// The rows in the cache of a segment and all above it, given those of the forest.
std::vector<RowSpan> rows_of_path(const forest::TokenForest& forest, std::int64_t segment, const std::vector<RowSpan>& rows,
                                  std::vector<RowSpan> above) {
  auto path = forest.ancestors(segment);
  path.push_back(segment);
  for (const auto s : path) {
    const auto& part = forest.segments()[static_cast<std::size_t>(s)];
    for (const auto& run : part_of_rows(rows, part.first_row, part.length)) append_rows(above, run);
  }
  return above;
}

}  // namespace

void check_request(const Model& model, const Request& request) {
  check_sampler(request.options.sampler);
  if (request.options.max_new_tokens < 1) {
    fail(ErrorKind::kUsage, "max_new_tokens is {}; expected 1 or more", request.options.max_new_tokens);
  }
  const auto length = static_cast<std::int64_t>(request.tokens.size());
  if (length == 0) fail(ErrorKind::kUsage, "{} has no tokens", request.name);
  if (length >= model.spec().max_positions) {
    fail(ErrorKind::kUsage, "{} has {} tokens; the model's context of {} leaves no room for an answer", request.name, length,
         model.spec().max_positions);
  }
  for (const auto token : request.tokens) {
    if (token >= 0 && token < model.spec().vocab_size) continue;
    fail(ErrorKind::kMismatch, "{}: token id {} is outside the model's vocabulary of {} (another model's tokenizer?)", request.name, token,
         model.spec().vocab_size);
  }
}

std::int64_t cache_rows_for(const Model& model, std::span<const Request> requests, const SessionOptions& options) {
  const auto in_pages = [&](std::int64_t rows) { return (rows + options.page_rows - 1) / options.page_rows * options.page_rows; };
  std::vector<forest::Sequence> sequences;
  std::int64_t rows = 0;
  for (const auto& request : requests) {
    sequences.push_back({request.tokens, 0, group_of(request)});
    rows += in_pages(most_new_tokens(model, request) - 1);
  }
  return rows + in_pages(forest::build_batch(sequences, {.keep_last_token = true}).forest.num_rows());
}

Session::Session(const Model& model, const SessionOptions& options)
    : model_(model), options_(checked(model, options)), pages_(options_.cache_rows, options_.page_rows) {
  const torch::InferenceMode inference;
  cache_ = model.make_cache(options_.cache_rows);
}

/// The last new token is not computed, so it needs no row.
std::int64_t Session::most_new(const Request& request) const { return most_new_tokens(model_, request) - 1; }

RequestId Session::add(Request request) {
  check_request(model_, request);
  const auto wanted = pages_.pages_for(static_cast<std::int64_t>(request.tokens.size())) + pages_.pages_for(most_new(request));
  if (wanted > pages_.num_pages()) {
    fail(ErrorKind::kUsage, "{} and its answer take {} pages of {} rows of the KV cache, which has {}: allow fewer new tokens or more rows",
         request.name, wanted, pages_.page_rows(), pages_.num_pages());
  }
  Sampler sampler(request.options.sampler);
  waiting_.push_back({next_id_, std::move(request), sampler});
  return next_id_++;
}

bool Session::remove(RequestId id) {
  const auto is_it = [id](const auto& one) { return one.id == id; };
  return std::erase_if(waiting_, is_it) + std::erase_if(running_, is_it) > 0;
}

std::vector<ChosenToken> Session::step() {
  const torch::InferenceMode inference;
  std::vector<std::pair<std::vector<Running>, Logits>> joined;
  for (auto& joining : next_to_join()) {
    auto requests = join(joining);
    auto logits = logits_of(requests, hidden_of(model_, rows_of(joining), joining.batch.last_rows));
    joined.emplace_back(std::move(requests), std::move(logits));
  }
  Logits logits;
  if (!running_.empty()) logits = logits_of(running_, hidden_of_all(model_, next_rows()));
  // All is computed. From here on requests change.
  for (auto& running : running_) {
    append_rows(running.rows, part_of_rows(running.reserved, 0, 1).at(0));
    running.reserved = part_of_rows(running.reserved, 1, count_rows(running.reserved) - 1);
  }
  auto chosen = choose(running_, logits);
  for (auto& [requests, theirs] : joined) {
    std::ranges::move(choose(requests, theirs), std::back_inserter(chosen));
    std::ranges::move(requests, std::back_inserter(running_));
  }
  const auto of = [&](RequestId id) { return std::ranges::find(chosen, id, &ChosenToken::id); };
  std::erase_if(waiting_, [&](const Waiting& one) { return of(one.id) != chosen.end(); });
  if (!joined.empty()) std::ranges::sort(running_, {}, &Running::id);
  std::erase_if(running_, [&](const Running& one) { return of(one.id)->finish.has_value(); });
  std::ranges::sort(chosen, {}, &ChosenToken::id);
  return chosen;
}

/// The running request with which `request` has the most tokens in common, among those that are computed.
Session::Shared Session::most_shared(const Request& request) const {
  Shared best;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const auto& other = running_[i];
    if (group_of(other.request) != group_of(request)) continue;
    // The last token of the prompt is always computed: it gives the first logits.
    const auto limit = std::min(count_rows(other.rows), static_cast<std::int64_t>(request.tokens.size()) - 1);
    const auto end = std::mismatch(request.tokens.begin(), request.tokens.begin() + limit, other.tokens.begin()).first;
    if (end - request.tokens.begin() > best.length) best = {i, end - request.tokens.begin()};
  }
  return best.length < kLeastShared ? Shared{} : best;
}

/// The first `count` waiting requests: those that share nothing with running ones, and those that do.
std::vector<Session::Joining> Session::lay_out(std::size_t count, std::span<const Shared> shared) const {
  std::vector<Joining> joining(2);
  std::vector<forest::Sequence> sequences[2];
  std::map<std::pair<std::size_t, std::int64_t>, std::int32_t> group_of_shared;  // the new tokens of a group continue the same rows
  for (std::size_t i = 0; i < count; ++i) {
    const auto& request = waiting_[i].request;
    const auto which = shared[i].length > 0 ? 1 : 0;
    joining[which].who.push_back(i);
    if (which == 0) {
      sequences[0].push_back({request.tokens, 0, group_of(request)});
      continue;
    }
    joining[1].shared.push_back(shared[i]);
    const auto found = group_of_shared.try_emplace({shared[i].with, shared[i].length}, static_cast<std::int32_t>(group_of_shared.size()));
    sequences[1].push_back({{request.tokens.begin() + shared[i].length, request.tokens.end()}, 0, found.first->second});
  }
  for (const auto which : {1, 0}) {
    if (sequences[which].empty())
      joining.erase(joining.begin() + which);
    else
      joining[static_cast<std::size_t>(which)].batch = forest::build_batch(sequences[which], {.keep_last_token = true});
  }
  return joining;
}

std::int64_t Session::pages_for(const std::vector<Joining>& joining) const {
  std::int64_t pages = 0;
  for (const auto& part : joining) {
    pages += pages_.pages_for(part.batch.forest.num_rows());
    for (const auto i : part.who) pages += pages_.pages_for(most_new(waiting_[i].request));
  }
  return pages;
}

/// As many of the waiting requests, from the first on, as there are places and pages for.
std::vector<Session::Joining> Session::next_to_join() const {
  const auto places = static_cast<std::size_t>(options_.max_batch) - running_.size();
  std::vector<Shared> shared;
  for (std::size_t i = 0; i < std::min(waiting_.size(), places); ++i) {
    shared.push_back(most_shared(waiting_[i].request));
    if (i == 0 && pages_for(lay_out(1, shared)) > pages_.num_free()) return {};  // all others wait behind it
  }
  std::vector<Joining> best;
  std::size_t fits = 0, too_many = shared.size() + 1;
  for (auto count = shared.size(); fits + 1 < too_many; count = (fits + too_many) / 2) {
    auto joining = lay_out(count, shared);
    if (pages_for(joining) <= pages_.num_free()) {
      fits = count;
      best = std::move(joining);
    } else {
      too_many = count;
    }
  }
  return best;
}

/// Gives the requests their rows in the cache.
std::vector<Session::Running> Session::join(Joining& joining) {
  const auto& forest = joining.batch.forest;
  const auto lease = pages_.take(forest.num_rows(), joining.rows);
  std::vector<Running> requests;
  for (std::size_t i = 0; i < joining.who.size(); ++i) {
    const auto& [id, request, sampler] = waiting_[joining.who[i]];
    Running running{id, request, sampler, request.tokens, {}, {}, {}};
    std::vector<RowSpan> above;
    if (!joining.shared.empty()) above = part_of_rows(running_[joining.shared[i].with].rows, 0, joining.shared[i].length);
    running.rows = rows_of_path(forest, joining.batch.leaves[i], joining.rows, std::move(above));
    running.leases.push_back(pages_.share(running.rows));
    running.leases.push_back(pages_.take(most_new(request), running.reserved));
    requests.push_back(std::move(running));
  }
  return requests;
}

/// What is new of the joining requests. A forest that continues nothing attends to itself; else its rows read the cache.
ForwardRows Session::rows_of(const Joining& joining) {
  const auto& forest = joining.batch.forest;
  auto rows = forest_rows(forest);
  rows.cache = &cache_;
  for (const auto& run : joining.rows) {
    for (auto row = run.first; row < run.first + run.length; ++row) rows.cache_rows.push_back(row);
  }
  if (joining.shared.empty()) return rows;
  std::map<std::int32_t, std::size_t> one_of;  // a request of each group of the forest
  for (std::size_t i = 0; i < joining.who.size(); ++i) {
    one_of[forest.segments()[static_cast<std::size_t>(joining.batch.leaves[i])].group] = i;
  }
  rows.groups.resize(rows.tokens.size());
  auto plan = std::make_shared<backend::AttentionPlan>();
  plan->num_queries = forest.num_rows();
  plan->num_keys = options_.cache_rows;
  for (const auto& segment : forest.segments()) {
    const auto i = one_of.at(segment.group);
    const auto [with, length] = joining.shared[i];
    auto above = part_of_rows(running_[with].rows, 0, length);
    if (segment.parent != forest::kNoParent) above = rows_of_path(forest, segment.parent, joining.rows, std::move(above));
    add_blocks(*plan, segment.first_row, part_of_rows(joining.rows, segment.first_row, segment.length), std::move(above));
    for (auto row = segment.first_row; row < segment.first_row + segment.length; ++row) {
      rows.positions[static_cast<std::size_t>(row)] += length;
      rows.groups[static_cast<std::size_t>(row)] = group_of(waiting_[joining.who[i]].request);
    }
  }
  rows.plan = std::move(plan);
  rows.attend_to_cache = true;
  return rows;
}

/// The last token of every running request, which sees the rows of all its others.
ForwardRows Session::next_rows() {
  ForwardRows rows;
  auto plan = std::make_shared<backend::AttentionPlan>();
  const bool has_groups = std::ranges::any_of(running_, [](const Running& running) { return group_of(running.request) != 0; });
  for (const auto& running : running_) {
    const auto own = part_of_rows(running.reserved, 0, 1);
    add_blocks(*plan, static_cast<std::int64_t>(rows.tokens.size()), own, running.rows);
    rows.tokens.push_back(running.tokens.back());
    rows.positions.push_back(static_cast<std::int64_t>(running.tokens.size()) - 1);
    if (has_groups) rows.groups.push_back(group_of(running.request));
    rows.cache_rows.push_back(own.at(0).first);
  }
  plan->num_queries = static_cast<std::int64_t>(rows.tokens.size());
  plan->num_keys = options_.cache_rows;
  rows.plan = std::move(plan);
  rows.cache = &cache_;
  rows.attend_to_cache = true;
  return rows;
}

Session::Logits Session::logits_of(std::span<const Running> running, const torch::Tensor& hidden) const {
  const auto logits = model_.head().logits(hidden);
  const auto places = logits.argmax(1);  // of a NaN, if there is one
  const bool is_greedy = std::ranges::all_of(running, [](const Running& one) { return one.sampler.is_greedy(); });
  return {places.cpu(), logits.gather(1, places.unsqueeze(1)).squeeze(1).isfinite().cpu(), is_greedy ? torch::Tensor() : logits.cpu()};
}

/// Appends to each request the token that it chooses.
std::vector<ChosenToken> Session::choose(std::span<Running> running, const Logits& logits) {
  std::vector<ChosenToken> chosen;
  if (running.empty()) return chosen;
  const auto count = static_cast<std::int64_t>(running.size());
  const auto* largest = tensor::raw_data<std::int64_t>(logits.largest, "chosen tokens", {count});
  const auto* is_finite = tensor::raw_data<bool>(logits.is_finite, "finite logits", {count});
  for (std::int64_t i = 0; i < count; ++i) {
    auto& one = running[static_cast<std::size_t>(i)];
    if (!is_finite[i]) {
      chosen.push_back({one.id, -1, Finish::kNotFinite});
      continue;
    }
    const auto token = one.sampler.is_greedy() ? static_cast<std::int32_t>(largest[i]) : one.sampler.choose(logits.all[i]);
    one.tokens.push_back(token);
    chosen.push_back({one.id, token, std::nullopt});
    if (std::ranges::find(one.request.options.stop_ids, token) != one.request.options.stop_ids.end())
      chosen.back().finish = Finish::kStopId;
    else if (one.reserved.empty())
      chosen.back().finish = Finish::kLength;
  }
  return chosen;
}

}  // namespace quiver::model
