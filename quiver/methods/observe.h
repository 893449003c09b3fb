// What the base model's hidden states say of adapters: passes that watch what enters the projections, adapters off.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/model/model.h"
#include "quiver/routing/score_router.h"

namespace quiver::methods {

/// A prompt as token ids, without special tokens.
using Prompt = std::vector<std::int32_t>;

/// Vectors of adapters by projection path, each [N, c, d_in], and how they score a token.
struct Scoring {
  std::map<std::string, torch::Tensor> vectors;
  routing::ScoreRule rule;
};

/// Scores of the adapters over prompts: for every path, in the order of `paths`,
struct ScoreSummary {
  std::vector<std::string> paths;
  torch::Tensor by_prompt;        ///< [P, L, N]: the mean over a prompt's tokens
  torch::Tensor last;             ///< [P, L, N]: of its last token
  torch::Tensor mean, deviation;  ///< [L, N]: over all tokens of all prompts, a shared prefix counted as often as it occurs
};

/// One pass of the base over the prompts; what they have in common is computed once. float64 sums in a fixed order: the same result for
/// any number of threads. Throws kUsage without prompts or for an empty one, kMismatch for a path that the model does not have.
ScoreSummary observe_scores(const model::Model& base, std::span<const Prompt> prompts, const Scoring& scoring, Progress& progress);

/// Throws kMismatch for a score that is not finite, naming the path and the adapter, or all adapters if no adapter's score is finite
/// there. scores [P, L, N], paths [L], adapters [N].
void check_finite(const torch::Tensor& scores, std::span<const std::string> paths, std::span<const std::string> adapters);

/// The mean of what enters each projection of `paths` over a prompt's tokens, path -> [P, d_in] float32.
std::map<std::string, torch::Tensor> observe_inputs(const model::Model& base, std::span<const Prompt> prompts,
                                                    std::span<const std::string> paths, Progress& progress);

/// The final hidden state (after the last norm) averaged over each prompt's tokens, [P, d] float32: an embedding of the text.
torch::Tensor observe_hidden(const model::Model& base, std::span<const Prompt> prompts, Progress& progress);

}  // namespace quiver::methods
