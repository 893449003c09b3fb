// Continuing prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quiver/model/llama.h"

namespace quiver::model {

struct GenerateOptions {
  std::int64_t max_new_tokens = 64;
  double temperature = 0;  ///< 0 is greedy: the largest logit, the first of equals
  double top_p = 1;        ///< sample from the smallest set of tokens whose probability reaches this
  std::uint64_t seed = 42;
  std::vector<std::int32_t> stop_ids;  ///< a sequence ends with the first of these, which is kept
  std::int64_t max_batch = 64;         ///< prompts decoded together
  std::vector<std::int32_t> groups;    ///< of the prompts (forest::Sequence::group); empty: all of group 0
  std::vector<std::string> names;      ///< of the prompts, for messages; empty: "prompt 0", ...
};

/// Called with each new token as (prompt index, token id). Returning false ends that sequence.
using TokenCallback = std::function<bool(std::int64_t, std::int32_t)>;

/// Called when the prompts of a batch have ended, with the index of the first and their results: whoever has many prompts need not wait for
/// all.
using BatchCallback = std::function<void(std::int64_t, std::span<const std::vector<std::int32_t>>)>;

/// The continuation of each prompt, without the prompt. Prompts that begin alike are computed once up to where they
/// part; sequences that have ended leave the batch. A prompt's result does not depend on the others' (up to rounding;
/// sampling draws from a stream of the prompt's own, "generate/<index>").
/// Throws kUsage for an empty prompt, a negative temperature, a top_p outside (0, 1], or a prompt that fills the context, and kMismatch for
/// logits that are not finite. A sequence that reaches the context's end stops there.
std::vector<std::vector<std::int32_t>> generate(const Llama& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const GenerateOptions& options, const TokenCallback& on_token = {},
                                                const BatchCallback& on_batch = {});

/// The token that `logits` [V] choose. Float64 arithmetic on the CPU.
std::int32_t choose_token(const torch::Tensor& logits, const GenerateOptions& options, RandomStream& random);

}  // namespace quiver::model
