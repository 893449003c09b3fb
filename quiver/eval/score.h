// Log-likelihoods of many sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/forest/token_forest.h"
#include "quiver/model/llama.h"

namespace quiver::eval {

/// log p(targets | what comes before) of one sequence.
struct SequenceScore {
  double log_prob = 0;                  ///< the sum
  std::vector<double> token_log_probs;  ///< one per target
  bool is_greedy = true;                ///< every target is its row's largest logit
};

struct ScoreOptions {
  std::int64_t max_batch_rows = 2048;  ///< rows computed at a time (one sequence may exceed it)
};

/// Throws kUsage, naming the sequence, for one beyond the model's context.
void check_context(const model::Llama& model, std::span<const forest::Sequence> sequences);

/// The score of every sequence, in order. Sequences are sorted so that those that begin alike share a batch, where their
/// common prefix is computed once; the result does not depend on it (up to rounding). Progress is told in sequences.
/// Throws as check_context, and kMismatch, naming the sequence, for a log-likelihood that is not finite.
std::vector<SequenceScore> score_sequences(const model::Llama& model, std::span<const forest::Sequence> sequences,
                                           const ScoreOptions& options, Progress& progress);

}  // namespace quiver::eval
