// Prompts that are scored and continued, each computed once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/eval/score.h"
#include "quiver/model/cached_pass.h"
#include "quiver/model/pass_names.h"
#include "quiver/schedule/scheduler.h"

namespace quiver::eval {

/// A prompt that is to be continued.
struct AnswerRequest {
  std::vector<std::int32_t> prompt;
  schedule::RequestOptions options;
  model::GroupHold group = nullptr;  ///< which adapters serve it; null: group 0
};

/// One KV cache over a model. Rows of a prompt stay for all that follows with the same beginning and the same adapters: the reference that
/// is scored, the answers that are generated, the next question after the same few-shot examples. Not thread-safe.
class PromptCache {
 public:
  /// The cache gets `num_rows` rows. The model must outlive it.
  PromptCache(const model::Model& model, std::int64_t num_rows);

  /// log p(targets | what comes before) of each sequence, up to rounding that of score_sequences; SequenceScore::is_greedy is not told.
  /// `groups` are those of the sequences; empty: all of group 0. Throws kUsage for a sequence without targets, or beyond the context or
  /// the cache; kMismatch for logits that are not finite.
  std::vector<SequenceScore> score(std::span<const forest::Sequence> sequences, std::span<const model::GroupHold> groups,
                                   const model::PassNames& names);

  /// The answer to each request, with the id that ended it. `is_complete` is told the tokens of an answer after each new one, and may end
  /// it. Throws as score.
  using IsComplete = std::function<bool(std::size_t request, std::span<const std::int32_t> answer)>;
  std::vector<std::vector<std::int32_t>> answer(std::span<const AnswerRequest> requests, const model::PassNames& names,
                                                const IsComplete& is_complete = {});

  schedule::SchedulerCounts counts() const { return scheduler_.counts(); }

  /// Gives up all rows. To be called before the groups that were given here are other ones.
  void forget() { scheduler_.forget_prefixes(); }

 private:
  model::ModelEngine engine_;
  schedule::Scheduler scheduler_;
};

/// Rows of a cache that hold all of these at once: what they have in common once, answers of at most so many tokens, and pages that are not
/// full. At most what 2 GiB of keys and values are, but enough for the longest: requests wait where rows are scarce.
std::int64_t cache_rows_for(const model::Model& model, std::span<const forest::Sequence> sequences,
                            std::span<const AnswerRequest> requests);

}  // namespace quiver::eval
