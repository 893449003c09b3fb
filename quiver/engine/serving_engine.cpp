#include "quiver/engine/serving_engine.h"

#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/model/decoder.h"

namespace quiver::engine {

using schedule::Query;
using schedule::RowResult;
using schedule::Segment;

/// Segments that are computed together, and the queries about them.
struct ServingEngine::Pass {
  const model::Model* model = nullptr;
  std::vector<PassParts::Part> parts;  // of a mixed pass
  std::vector<Segment> segments;
  std::vector<std::int32_t> groups;  // of the segments
  std::vector<Query> queries;
  std::vector<std::size_t> which;  // places of the queries' answers
};

namespace {

/// The places of segments, those of one context next to each other: mixed passes compute runs of rows of a context together.
std::vector<std::size_t> by_assignment(std::span<const Segment> segments) {
  const auto context_of = [&](std::size_t s) -> const Context* {
    const auto* decided = dynamic_cast<const DecidedContext*>(segments[s].assignment);
    return decided == nullptr ? nullptr : decided->context.get();
  };
  std::map<const Context*, std::vector<std::size_t>> of_context;
  std::vector<const Context*> contexts;  // as they come
  for (std::size_t s = 0; s < segments.size(); ++s) {
    auto& places = of_context[context_of(s)];
    if (places.empty()) contexts.push_back(context_of(s));
    places.push_back(s);
  }
  std::vector<std::size_t> order;
  for (const auto* context : contexts) order.insert(order.end(), of_context[context].begin(), of_context[context].end());
  return order;
}

}  // namespace

ServingEngine::ServingEngine(const methods::BaseModel& base, std::int64_t num_cache_rows, std::shared_ptr<RouteTracer> tracer)
    : base_(base),
      num_cache_rows_(num_cache_rows),
      tracer_(std::move(tracer)),
      base_context_(base_context(base)),
      mixed_(mixed_model(base.lm, parts_)) {
  const torch::InferenceMode inference;
  cache_ = base.lm.make_cache(num_cache_rows);
}

schedule::AssignmentPtr ServingEngine::decide(const schedule::AssignmentPtr& assignment, std::span<const std::int32_t> prompt) {
  auto context = std::dynamic_pointer_cast<const Context>(assignment);
  if (context == nullptr) fail(ErrorKind::kInternal, "a request that is given to the engine of a server without a context");
  return engine::decide(std::move(context), prompt);
}

std::vector<ServingEngine::Pass> ServingEngine::passes_of(std::span<const Segment> segments, std::span<const Query> queries) const {
  std::vector<Pass> passes;
  std::vector<std::pair<std::size_t, std::int64_t>> place_of(segments.size());  // of each segment: its pass, and its index there
  const auto pass_of = [&](const Context& context) {
    const auto* model = context.shares_passes ? &mixed_ : &context.model.lm;
    const auto found = std::ranges::find(passes, model, &Pass::model);
    if (found != passes.end()) return static_cast<std::size_t>(found - passes.begin());
    passes.push_back({.model = model});
    return passes.size() - 1;
  };
  for (const auto s : by_assignment(segments)) {
    const auto& segment = segments[s];
    const auto* decided = dynamic_cast<const DecidedContext*>(segment.assignment);
    const auto& context = decided == nullptr ? *base_context_ : *decided->context;
    const auto group = decided == nullptr || decided->group == nullptr ? 0 : *decided->group;
    const auto which = pass_of(context);
    auto& pass = passes[which];
    place_of[s] = {which, std::ssize(pass.segments)};
    pass.segments.push_back(segment);
    const auto same = [&](const PassParts::Part& part) { return part.context == &context && part.group == group; };
    const auto part = std::ranges::find_if(pass.parts, same);
    pass.groups.push_back(static_cast<std::int32_t>(part - pass.parts.begin()));
    if (part == pass.parts.end()) pass.parts.push_back({&context, group});
  }
  for (auto& pass : passes) {  // a single context needs no mixing: its own model computes it
    const auto* context = pass.parts.front().context;
    if (!std::ranges::all_of(pass.parts, [&](const auto& part) { return part.context == context; })) continue;
    pass.model = &context->model.lm;
    for (auto& group : pass.groups) group = pass.parts[static_cast<std::size_t>(group)].group;
  }
  for (std::size_t q = 0; q < queries.size(); ++q) {
    const auto [which, segment] = place_of[static_cast<std::size_t>(queries[q].segment)];
    passes[which].queries.push_back(queries[q]);
    passes[which].queries.back().segment = segment;
    passes[which].which.push_back(q);
  }
  return passes;
}

void ServingEngine::run(const Pass& pass, std::vector<RowResult>& results) {
  parts_->parts = pass.parts;
  parts_->groups.clear();
  for (std::size_t i = 0; i < pass.segments.size(); ++i) {
    const bool is_mixed = pass.model == &mixed_;
    const auto group = is_mixed ? pass.parts[static_cast<std::size_t>(pass.groups[i])].group : pass.groups[i];
    parts_->groups.insert(parts_->groups.end(), pass.segments[i].tokens.size(), group);
  }
  const auto rows = model::rows_over_cache(pass.segments, pass.groups, cache_, num_cache_rows_);
  const auto queried = model::queried_rows(pass.segments, pass.queries);
  std::vector<std::int64_t> traced;
  for (std::size_t q = 0; q < pass.queries.size(); ++q) {
    if (pass.queries[q].wants_route) traced.push_back(queried.rows[static_cast<std::size_t>(queried.of_query[q])]);
  }
  tracer_->begin(std::ssize(rows.tokens), traced);
  const auto hidden = model::hidden_of_queried(*pass.model, rows, queried);
  auto answers = model::answer_queries(pass.model->head(), hidden, queried.of_query, pass.queries, logits_.emplace_back());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (pass.queries[i].wants_route) answers[i].route = tracer_->take(queried.rows[static_cast<std::size_t>(queried.of_query[i])]);
    results[pass.which[i]] = std::move(answers[i]);
  }
}

std::vector<RowResult> ServingEngine::compute(std::span<const Segment> segments, std::span<const Query> queries) {
  const torch::InferenceMode inference;
  logits_.clear();
  std::vector<RowResult> results(queries.size());
  for (const auto& pass : passes_of(segments, queries)) run(pass, results);
  return results;
}

std::int64_t cache_row_bytes(const model::Model& model) {
  const auto& attention = model.spec().block.attention;
  const auto width = attention.num_kv_heads * attention.head_dim;
  return 2 * static_cast<std::int64_t>(model.blocks().size()) * width *
         static_cast<std::int64_t>(c10::elementSize(model.placement().dtype));
}

}  // namespace quiver::engine
