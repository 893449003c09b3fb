#include "quiver/eval/prompt_cache.h"

#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::eval {
namespace {

using schedule::Finish;
using schedule::RequestId;

constexpr schedule::SchedulerOptions kScheduling{.max_sequences = 64};

constexpr std::int64_t kMostCacheBytes = std::int64_t{2} << 30;

schedule::AssignmentPtr assignment_of(const model::GroupHold& group) {
  return group == nullptr ? nullptr : std::make_shared<const model::GroupAssignment>(group);
}

}  // namespace

PromptCache::PromptCache(const model::Model& model, std::int64_t num_rows) : engine_(model, num_rows), scheduler_(engine_, kScheduling) {}

std::vector<SequenceScore> PromptCache::score(std::span<const forest::Sequence> sequences, std::span<const model::GroupHold> groups,
                                              const model::PassNames& names) {
  const torch::InferenceMode inference;
  std::map<RequestId, std::size_t> index_of;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto& sequence = sequences[i];
    const auto size = std::ssize(sequence.tokens);
    const auto name = names.input(static_cast<std::int64_t>(i));
    if (sequence.num_targets < 1 || sequence.num_targets >= size)
      fail(ErrorKind::kUsage, "{}: {} of {} tokens are targets; expected 1 or more, after a token", name, sequence.num_targets, size);
    schedule::Request request{.tokens = sequence.tokens,
                              .options = {.max_new_tokens = 0},
                              .assignment = groups.empty() ? nullptr : assignment_of(groups[i]),
                              .is_scored = true,
                              .first_scored = size - sequence.num_targets,
                              .name = name};
    index_of.emplace(scheduler_.add(std::move(request)), i);
  }
  std::vector<SequenceScore> scores(sequences.size());
  while (!scheduler_.is_empty()) {
    for (const auto& event : scheduler_.step()) {
      const auto index = index_of.at(event.id);
      if (event.finish == Finish::kNotFinite) model::fail_not_finite(names.input(static_cast<std::int64_t>(index)), names.model);
      for (const auto& token : event.prompt) {
        scores[index].log_prob += token.log_prob;
        scores[index].token_log_probs.push_back(token.log_prob);
      }
    }
    throw_if_stopped("while scoring");
  }
  return scores;
}

std::vector<std::vector<std::int32_t>> PromptCache::answer(std::span<const AnswerRequest> requests, const model::PassNames& names,
                                                           const IsComplete& is_complete) {
  const torch::InferenceMode inference;
  std::map<RequestId, std::size_t> index_of;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    schedule::Request request{.tokens = requests[i].prompt,
                              .options = requests[i].options,
                              .assignment = assignment_of(requests[i].group),
                              .name = names.input(static_cast<std::int64_t>(i))};
    index_of.emplace(scheduler_.add(std::move(request)), i);
  }
  std::vector<std::vector<std::int32_t>> answers(requests.size());
  while (!scheduler_.is_empty()) {
    for (const auto& event : scheduler_.step()) {
      const auto index = index_of.at(event.id);
      if (event.finish == Finish::kNotFinite) model::fail_not_finite(names.input(static_cast<std::int64_t>(index)), names.model);
      answers[index].push_back(event.token);
      if (is_complete && !event.finish && is_complete(index, answers[index])) scheduler_.remove(event.id);
    }
    throw_if_stopped("while generating");
  }
  return answers;
}

std::int64_t cache_rows_for(const model::Model& model, std::span<const forest::Sequence> sequences,
                            std::span<const AnswerRequest> requests) {
  constexpr auto page = kScheduling.page_rows;
  const auto& spec = model.spec();
  std::vector<forest::Sequence> all(sequences.begin(), sequences.end());
  std::int64_t rows = 2 * page * std::ssize(sequences), longest = 0;
  for (const auto& [prompt, options, group] : requests) {
    const auto answer = std::min(options.max_new_tokens, spec.max_positions - std::ssize(prompt));
    all.push_back({prompt, 0, group == nullptr ? 0 : *group});
    rows += answer + 3 * page;
    longest = std::max(longest, std::ssize(prompt) + answer);
  }
  for (const auto& sequence : sequences) longest = std::max<std::int64_t>(longest, std::ssize(sequence.tokens));
  rows += forest::build_batch(all, {.keep_last_token = true}).forest.num_rows();
  const auto& attention = spec.block.attention;
  const auto row_bytes = 2 * spec.num_layers() * attention.num_kv_heads * attention.head_dim * static_cast<std::int64_t>(sizeof(float));
  const auto most = kMostCacheBytes / row_bytes;
  return std::max(std::min(rows, most), longest + 3 * page);
}

}  // namespace quiver::eval
