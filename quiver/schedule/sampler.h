// Choosing a token from logits.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/schedule/request.h"

namespace quiver::schedule {

/// Throws kUsage for an option out of its range (SamplerOptions).
void check_sampler(const SamplerOptions& options);

/// Chooses the tokens of one sequence, from random numbers of its own. A copy goes on with the same numbers. Not thread-safe.
class Sampler {
 public:
  /// Throws as check_sampler. `prompt` counts for the repetition penalty.
  explicit Sampler(SamplerOptions options, std::span<const std::int32_t> prompt = {});

  /// Whether the choice is the largest logit as the model gives it.
  bool is_plain_greedy() const { return is_plain_ && options_.temperature == 0; }
  /// The next token, given its logits [V]; none of `banned`. Float64 arithmetic. V is 1 or more.
  std::int32_t choose(std::span<const float> logits, std::span<const std::int32_t> banned = {});
  /// Counts a token of the answer for the penalties. Whoever chose it says so.
  void count(std::int32_t token);

 private:
  void penalise(std::vector<float>& logits) const;
  std::int32_t draw(std::span<const float> logits);

  SamplerOptions options_;
  bool is_plain_;  // logits stay as the model gives them
  RandomStream random_;
  std::unordered_map<std::int32_t, std::int64_t> in_answer_;  // token -> how often
  std::vector<bool> in_prompt_;                               // by token; empty unless there is a repetition penalty
};

}  // namespace quiver::schedule
