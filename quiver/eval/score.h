// Log-likelihoods of many sequences.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/data/prompt_format.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/model.h"
#include "quiver/model/pass_names.h"

namespace quiver::eval {

/// log p(targets | what comes before) of one sequence.
struct SequenceScore {
  double log_prob = 0;                  ///< the sum
  std::vector<double> token_log_probs;  ///< one per target
  bool is_greedy = true;                ///< every target is its row's largest logit

  /// The mean over the targets; 0 without targets.
  double mean_log_prob() const { return log_prob / static_cast<double>(std::max<std::size_t>(token_log_probs.size(), 1)); }
};

struct ScoreOptions {
  std::int64_t max_batch_rows = 2048;  ///< rows computed at a time (one sequence may exceed it)
  model::PassNames names;              ///< for messages
};

/// Throws kUsage, naming the sequence, for one beyond the model's context.
void check_context(const model::Model& model, std::span<const forest::Sequence> sequences);

/// The score of every sequence, in order. Sequences are sorted so that those that begin alike share a batch, where their
/// common prefix is computed once; the result does not depend on it (up to rounding). Progress is told in sequences.
/// Throws as check_context, and kMismatch for logits that are not finite (model::check_finite).
std::vector<SequenceScore> score_sequences(const model::Model& model, std::span<const forest::Sequence> sequences,
                                           const ScoreOptions& options, Progress& progress);

/// The mean over rows of SequenceScore::mean_log_prob of their last answers. `name` is the model's, for messages. Longer rows are cut from
/// the left to `max_length` tokens (data::encode_example). Throws as score_sequences.
double mean_log_likelihood(const model::Model& model, const std::string& name, const text::Tokenizer& tokenizer,
                           const data::PromptFormat& format, std::span<const data::Example> rows, std::int64_t max_length);

/// Cuts a long list, in its order, into runs that can be scored one after another. A run has at most `max_rows` rows, or one sequence;
/// a prefix that a sequence shares with the one before it is not counted again. Returns the end of each run.
std::vector<std::size_t> score_runs(std::span<const forest::Sequence> sequences, std::int64_t max_rows);

}  // namespace quiver::eval
