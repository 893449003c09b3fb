#include "quiver/model/generate.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/model/decoder.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

/// One sequence being decoded.
struct Active {
  std::int64_t prompt = 0;
  std::int64_t prompt_length = 0;
  std::int64_t leaf = 0;        // the forest's segment it continues
  std::int64_t first_tail = 0;  // cache row of its first new token
  std::int64_t num_new = 0;     // new tokens that are in the cache
  std::int64_t max_new = 0;
  std::int32_t last = 0;  // chosen, not yet computed
  std::int32_t group = 0;
};

/// The rows of one decoding step: each sequence's last token, seeing its prompt's path and its own tail.
ForwardRows step_rows(const std::vector<Active>& active, const forest::TokenForest& forest, KvCache& cache, std::int64_t capacity) {
  ForwardRows rows;
  const bool has_groups = std::ranges::any_of(active, [](const Active& sequence) { return sequence.group != 0; });
  auto plan = std::make_shared<backend::AttentionPlan>();
  const auto segments = forest.segments();
  for (const auto& sequence : active) {
    backend::AttentionBlock block;
    block.first_query = static_cast<std::int64_t>(rows.tokens.size());
    block.length = 1;
    block.first_key = sequence.first_tail + sequence.num_new;
    block.spans_begin = static_cast<std::int64_t>(plan->spans.size());
    auto path = forest.ancestors(sequence.leaf);
    path.push_back(sequence.leaf);
    for (const auto s : path) {
      const auto& segment = segments[static_cast<std::size_t>(s)];
      if (segment.length > 0) plan->spans.push_back({segment.first_row, segment.length});
      block.num_visible += segment.length;
    }
    if (sequence.num_new > 0) plan->spans.push_back({sequence.first_tail, sequence.num_new});
    block.num_visible += sequence.num_new;
    block.spans_end = static_cast<std::int64_t>(plan->spans.size());
    plan->blocks.push_back(block);
    rows.tokens.push_back(sequence.last);
    if (has_groups) rows.groups.push_back(sequence.group);
    rows.positions.push_back(sequence.prompt_length + sequence.num_new);
    rows.cache_rows.push_back(block.first_key);
  }
  plan->num_queries = static_cast<std::int64_t>(rows.tokens.size());
  plan->num_keys = capacity;
  rows.plan = std::move(plan);
  rows.cache = &cache;
  rows.attend_to_cache = true;
  return rows;
}

/// Decodes prompts [first, first + count) together.
class BatchDecoder {
 public:
  BatchDecoder(const Model& model, const GenerateOptions& options, const TokenCallback& on_token,
               std::vector<std::vector<std::int32_t>>& results)
      : model_(model), options_(options), on_token_(on_token), results_(results) {}

  void run(std::span<const std::vector<std::int32_t>> prompts, std::int64_t first) {
    std::vector<forest::Sequence> sequences;
    const auto group_of = [&](std::size_t i) { return options_.groups.empty() ? 0 : options_.groups[static_cast<std::size_t>(first) + i]; };
    for (std::size_t i = 0; i < prompts.size(); ++i) sequences.push_back({prompts[i], 0, group_of(i)});
    const auto batch = forest::build_batch(sequences, {.keep_last_token = true});
    std::vector<Active> active;
    auto capacity = batch.forest.num_rows();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const auto length = static_cast<std::int64_t>(prompts[i].size());
      const auto room = model_.spec().max_positions - length;
      if (room < 1) {
        fail(ErrorKind::kUsage, "{} has {} tokens; the model's context of {} leaves no room for an answer",
             options_.names.input(first + static_cast<std::int64_t>(i)), length, model_.spec().max_positions);
      }
      const auto max_new = std::min(options_.max_new_tokens, room);
      active.push_back({first + static_cast<std::int64_t>(i), length, batch.leaves[i], capacity, 0, max_new, 0, group_of(i)});
      capacity += max_new;
    }
    auto cache = model_.make_cache(capacity);
    auto rows = forest_rows(batch.forest);
    rows.cache = &cache;
    for (std::int64_t r = 0; r < batch.forest.num_rows(); ++r) rows.cache_rows.push_back(r);
    auto hidden = hidden_of(model_, rows, batch.last_rows);
    for (const auto& sequence : active) random_.emplace_back(options_.seed, format("generate/{}", options_.first_index + sequence.prompt));
    choose(active, hidden, first);
    while (!active.empty()) {
      hidden = hidden_of_all(model_, step_rows(active, batch.forest, cache, capacity));
      for (auto& sequence : active) ++sequence.num_new;
      choose(active, hidden, first);
    }
  }

 private:
  /// Chooses the next token of each sequence and drops those that have ended.
  void choose(std::vector<Active>& active, const torch::Tensor& hidden, std::int64_t first) {
    const auto logits = model_.head().forward(hidden);
    const bool greedy = options_.temperature == 0;
    const auto places = greedy ? logits.argmax(1) : torch::Tensor();  // of a NaN, if there is one
    std::vector<std::int64_t> prompt_of;
    for (const auto& sequence : active) prompt_of.push_back(sequence.prompt);
    check_finite(greedy ? logits.gather(1, places.unsqueeze(1)).squeeze(1) : logits.amax(1), prompt_of, options_.names);
    const auto best = greedy ? places.cpu() : torch::Tensor();
    const auto* best_ids = greedy ? tensor::raw_data<std::int64_t>(best, "chosen tokens", {best.size(0)}) : nullptr;
    const auto cpu_logits = greedy ? torch::Tensor() : logits.cpu();
    std::vector<Active> going_on;
    for (std::size_t i = 0; i < active.size(); ++i) {
      auto sequence = active[i];
      const auto row = static_cast<std::int64_t>(i);
      sequence.last = greedy ? static_cast<std::int32_t>(best_ids[row])
                             : choose_token(cpu_logits[row], options_, random_[static_cast<std::size_t>(sequence.prompt - first)]);
      auto& result = results_[static_cast<std::size_t>(sequence.prompt)];
      result.push_back(sequence.last);
      const bool wanted = !on_token_ || on_token_(sequence.prompt, sequence.last);
      const bool stopped = std::ranges::find(options_.stop_ids, sequence.last) != options_.stop_ids.end();
      if (wanted && !stopped && static_cast<std::int64_t>(result.size()) < sequence.max_new) going_on.push_back(sequence);
    }
    active = std::move(going_on);
  }

  const Model& model_;
  const GenerateOptions& options_;
  const TokenCallback& on_token_;
  std::vector<std::vector<std::int32_t>>& results_;
  std::vector<RandomStream> random_;
};

}  // namespace

std::int32_t choose_token(const torch::Tensor& logits, const GenerateOptions& options, RandomStream& random) {
  if (options.temperature == 0) return static_cast<std::int32_t>(logits.argmax().item<std::int64_t>());
  const auto probabilities = (logits.to(torch::kDouble) / options.temperature).softmax(0);
  if (options.top_p == 1) {  // nothing is cut, so nothing need be sorted
    const auto p = tensor::elements<double>(probabilities, "probabilities");
    double point = random.uniform();
    std::size_t id = 0;
    while (id + 1 < p.size() && (point -= p[id]) >= 0) ++id;
    return static_cast<std::int32_t>(id);
  }
  const auto [sorted, order] = probabilities.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
  const auto p = tensor::elements<double>(sorted, "sorted probabilities");
  const auto id = tensor::elements<std::int64_t>(order, "order of the probabilities");
  std::size_t kept = 0;
  double total = 0;
  while (kept < p.size() && (kept == 0 || total < options.top_p)) total += p[kept++];
  double point = random.uniform() * total;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    point -= p[i];
    if (point < 0) return static_cast<std::int32_t>(id[i]);
  }
  return static_cast<std::int32_t>(id[kept - 1]);
}

std::vector<std::vector<std::int32_t>> generate(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const GenerateOptions& options, const TokenCallback& on_token) {
  if (!(options.temperature >= 0)) fail(ErrorKind::kUsage, "temperature is {}; expected 0 or more", options.temperature);
  if (!(options.top_p > 0 && options.top_p <= 1)) fail(ErrorKind::kUsage, "`top_p` is {}; expected above 0 and at most 1", options.top_p);
  if (options.max_new_tokens < 1) fail(ErrorKind::kUsage, "max_new_tokens is {}; expected 1 or more", options.max_new_tokens);
  if (options.max_batch < 1) fail(ErrorKind::kUsage, "max_batch is {}; expected 1 or more", options.max_batch);
  if (!options.groups.empty() && options.groups.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} groups for {} prompts; expected one a prompt", options.groups.size(), prompts.size());
  }
  if (!options.names.inputs.empty() && options.names.inputs.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} names for {} prompts; expected one a prompt", options.names.inputs.size(), prompts.size());
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty()) fail(ErrorKind::kUsage, "{} has no tokens", options.names.input(static_cast<std::int64_t>(i)));
  }
  const torch::InferenceMode inference;
  std::vector<std::vector<std::int32_t>> results(prompts.size());
  for (std::size_t first = 0; first < prompts.size(); first += static_cast<std::size_t>(options.max_batch)) {
    const auto count = std::min(prompts.size() - first, static_cast<std::size_t>(options.max_batch));
    BatchDecoder(model, options, on_token, results).run(prompts.subspan(first, count), static_cast<std::int64_t>(first));
  }
  return results;
}

}  // namespace quiver::model
