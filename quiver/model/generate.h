// Continuing prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quiver/model/model.h"
#include "quiver/model/pass_names.h"

namespace quiver::model {

struct GenerateOptions {
  std::int64_t max_new_tokens = 64;
  double temperature = 0;  ///< 0 is greedy: the largest logit, the first of equals
  double top_p = 1;        ///< sample from the smallest set of tokens whose probability reaches this
  std::uint64_t seed = 42;
  std::vector<std::int32_t> stop_ids;  ///< a sequence ends with the first of these, which is kept
  std::int64_t max_batch = 64;         ///< prompts decoded together
  std::vector<std::int32_t> groups;    ///< of the prompts (forest::Sequence::group); empty: all of group 0
  std::int64_t first_index = 0;        ///< index of the first prompt among those of a longer run, for its stream of random numbers
  PassNames names;                     ///< for messages
};

/// Called with each new token as (prompt index, token id). Returning false ends that sequence.
using TokenCallback = std::function<bool(std::int64_t, std::int32_t)>;

/// The continuation of each prompt, without the prompt. Prompts that begin alike are computed once up to where they
/// part; sequences that have ended leave the batch. A prompt's result does not depend on the others' (up to rounding;
/// sampling draws from a stream of the prompt's own, "generate/<first_index + index>").
/// Throws kUsage for an empty prompt, a negative temperature, a top_p outside (0, 1], or a prompt that fills the context, and kMismatch for
/// logits that are not finite. A sequence that reaches the context's end stops there.
std::vector<std::vector<std::int32_t>> generate(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const GenerateOptions& options, const TokenCallback& on_token = {});

/// The token that `logits` [V] choose. Float64 arithmetic on the CPU.
std::int32_t choose_token(const torch::Tensor& logits, const GenerateOptions& options, RandomStream& random);

}  // namespace quiver::model
