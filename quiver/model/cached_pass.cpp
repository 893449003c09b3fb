#include "quiver/model/cached_pass.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "quiver/backend/ops.h"
#include "quiver/base/error.h"
#include "quiver/model/decoder.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

using schedule::Query;
using schedule::RowResult;
using schedule::Segment;

/// Rows whose logits exist at a time.
constexpr std::int64_t kLogitRows = 128;

std::vector<backend::AttentionSpan> spans_of(const std::vector<schedule::RowSpan>& rows) {
  std::vector<backend::AttentionSpan> spans;
  for (const auto& run : rows) spans.push_back({run.first, run.length});
  return spans;
}

/// The `count` largest of a row, the largest first, of equals the lower id.
std::vector<std::pair<std::int32_t, float>> largest_of(std::span<const float> row, std::int64_t count) {
  std::vector<std::pair<std::int32_t, float>> best;
  const auto most = std::min(static_cast<std::size_t>(count), row.size());
  auto least = -std::numeric_limits<float>::infinity();
  for (std::size_t v = 0; v < row.size(); ++v) {
    if (best.size() == most && !(row[v] > least)) continue;
    if (most == 0) break;
    const auto place = std::ranges::find_if(best, [&](const auto& other) { return row[v] > other.second; });
    best.insert(place, {static_cast<std::int32_t>(v), row[v]});
    if (best.size() > most) best.pop_back();
    if (best.size() == most) least = best.back().second;
  }
  return best;
}

RowResult answer(const Query& query, std::int64_t largest, float lse, std::span<const float> row) {
  RowResult result{.is_finite = std::isfinite(row[static_cast<std::size_t>(largest)]) && std::isfinite(lse),
                   .largest = static_cast<std::int32_t>(largest)};
  result.log_sum_exp = lse;
  const auto log_prob = [&](float logit) { return static_cast<double>(logit) - result.log_sum_exp; };
  if (query.target >= 0) result.score = {query.target, log_prob(row[static_cast<std::size_t>(query.target)]), {}};
  if (query.top == 1) {
    result.score.top = {{result.largest, log_prob(row[static_cast<std::size_t>(largest)])}};
  } else if (query.top > 1) {
    for (const auto& [token, logit] : largest_of(row, query.top)) result.score.top.emplace_back(token, log_prob(logit));
  }
  if (query.wants_logits) result.logits = row;
  return result;
}

}  // namespace

ForwardRows rows_over_cache(std::span<const Segment> segments, std::span<const std::int32_t> groups, KvCache& cache,
                            std::int64_t capacity) {
  ForwardRows rows{.cache = &cache, .attend_to_cache = true};
  const bool has_groups = std::ranges::any_of(groups, [](std::int32_t group) { return group != 0; });
  std::vector<backend::CachedRun> runs;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const auto& segment = segments[i];
    rows.tokens.insert(rows.tokens.end(), segment.tokens.begin(), segment.tokens.end());
    for (std::size_t t = 0; t < segment.tokens.size(); ++t) rows.positions.push_back(segment.position + static_cast<std::int64_t>(t));
    if (has_groups) rows.groups.insert(rows.groups.end(), segment.tokens.size(), groups[i]);
    for (const auto& run : segment.rows) {
      for (auto row = run.first; row < run.first + run.length; ++row) rows.cache_rows.push_back(row);
    }
    runs.push_back({spans_of(segment.rows), spans_of(segment.visible)});
  }
  rows.plan = std::make_shared<backend::AttentionPlan>(backend::plan_over_cache(runs, capacity));
  return rows;
}

QueriedRows queried_rows(std::span<const Segment> segments, std::span<const Query> queries) {
  std::vector<std::int64_t> first = {0};  // row of each segment
  for (const auto& segment : segments) first.push_back(first.back() + static_cast<std::int64_t>(segment.tokens.size()));
  std::map<std::int64_t, std::int64_t> place_of;
  for (const auto& query : queries) place_of.emplace(first[static_cast<std::size_t>(query.segment)] + query.row, 0);
  QueriedRows queried;
  for (auto& [row, place] : place_of) {
    place = static_cast<std::int64_t>(queried.rows.size());
    queried.rows.push_back(row);
  }
  for (const auto& query : queries) queried.of_query.push_back(place_of.at(first[static_cast<std::size_t>(query.segment)] + query.row));
  return queried;
}

torch::Tensor hidden_of_queried(const Model& model, const ForwardRows& rows, const QueriedRows& queried) {
  if (std::ssize(queried.rows) == std::ssize(rows.tokens)) return hidden_of_all(model, rows);
  const std::vector<std::int64_t> first = {0};
  return hidden_of(model, rows, queried.rows.empty() ? first : queried.rows);
}

std::vector<RowResult> answer_queries(const nn::Head& head, const torch::Tensor& hidden, std::span<const std::int64_t> of_query,
                                      std::span<const Query> queries, std::vector<torch::Tensor>& kept) {
  kept.clear();
  std::vector<RowResult> results(queries.size());
  std::vector<std::vector<std::size_t>> of_row(static_cast<std::size_t>(hidden.size(0)));  // queries
  for (std::size_t q = 0; q < queries.size(); ++q) of_row[static_cast<std::size_t>(of_query[q])].push_back(q);
  const auto needs_more = [&](std::size_t q) { return queries[q].target >= 0 || queries[q].top >= 0 || queries[q].wants_logits; };
  for (std::int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
    const auto count = std::min(kLogitRows, hidden.size(0) - first);
    const auto logits = head.logits(hidden.narrow(0, first, count));
    bool is_plain = true, is_kept = false;
    for (auto row = first; row < first + count; ++row) {
      for (const auto q : of_row[static_cast<std::size_t>(row)]) {
        is_plain = is_plain && !needs_more(q);
        is_kept = is_kept || queries[q].wants_logits;
      }
    }
    if (is_plain) {  // the largest are all that is asked for
      const auto places = logits.argmax(1);
      const auto finite = logits.gather(1, places.unsqueeze(1)).squeeze(1).isfinite().cpu();
      const auto on_cpu = places.cpu();
      const auto* largest = tensor::raw_data<std::int64_t>(on_cpu, "largest logits", {count});
      const auto* is_finite = tensor::raw_data<bool>(finite, "finite logits", {count});
      for (std::int64_t i = 0; i < count; ++i) {
        for (const auto q : of_row[static_cast<std::size_t>(first + i)]) {
          results[q] = {.is_finite = is_finite[i], .largest = static_cast<std::int32_t>(largest[i])};
        }
      }
      continue;
    }
    const auto [lse, best] = backend::summarize_logits(logits);
    const auto on_cpu = logits.to(torch::kCPU, torch::kFloat).contiguous();
    const auto sums = lse.to(torch::kCPU, torch::kFloat), places = best.to(torch::kCPU, torch::kLong);
    const auto width = on_cpu.size(1);
    const auto* values = tensor::raw_data<float>(on_cpu, "logits", {count, width});
    const auto* sum = tensor::raw_data<float>(sums, "log-sum-exp of logits", {count});
    const auto* largest = tensor::raw_data<std::int64_t>(places, "largest logits", {count});
    at::parallel_for(0, count, /*grain_size=*/1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) {
        const std::span row(values + i * width, static_cast<std::size_t>(width));
        for (const auto q : of_row[static_cast<std::size_t>(first + i)]) results[q] = answer(queries[q], largest[i], sum[i], row);
      }
    });
    if (is_kept) kept.push_back(on_cpu);
  }
  return results;
}

GroupAssignment::GroupAssignment(GroupHold hold) : group(std::move(hold)) { key = group == nullptr ? "" : format("group {}", *group); }

ModelEngine::ModelEngine(const Model& model, std::int64_t num_cache_rows) : model_(model), num_cache_rows_(num_cache_rows) {
  const torch::InferenceMode inference;
  cache_ = model.make_cache(num_cache_rows);
}

std::vector<RowResult> ModelEngine::compute(std::span<const Segment> segments, std::span<const Query> queries) {
  const torch::InferenceMode inference;
  std::vector<std::int32_t> groups;
  for (const auto& segment : segments) {
    const auto* assignment = dynamic_cast<const GroupAssignment*>(segment.assignment);
    groups.push_back(assignment == nullptr || assignment->group == nullptr ? 0 : *assignment->group);
  }
  const auto rows = rows_over_cache(segments, groups, cache_, num_cache_rows_);
  const auto queried = queried_rows(segments, queries);
  const auto hidden = hidden_of_queried(model_, rows, queried);
  return answer_queries(model_.head(), hidden, queried.of_query, queries, logits_);
}

}  // namespace quiver::model
