// Continuing prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/model/cached_pass.h"
#include "quiver/model/pass_names.h"
#include "quiver/schedule/request.h"

namespace quiver::model {

struct GenerateOptions {
  std::int64_t max_batch = 64;    ///< prompts decoded together
  std::vector<GroupHold> groups;  ///< of the prompts; empty: all of group 0
  std::int64_t first_index = 0;   ///< index of the first prompt among those of a longer run, for its stream of random numbers
  PassNames names;                ///< for messages
  StopToken stop;                 ///< ends all sequences where they are
};

/// Called with each new token as (prompt index, token id). Returning false ends that sequence.
using TokenCallback = std::function<bool(std::int64_t, std::int32_t)>;

/// The continuation of each prompt, without the prompt: a scheduler for every max_batch prompts, step by step until all have ended. A
/// prompt's result does not depend on the others' (up to rounding; sampling draws from a stream of the prompt's own, "generate/<first_index
/// + index>", whatever `request` says). A sequence that reaches the context's end stops there. Throws as schedule::check_request, and
/// kMismatch for logits that are not finite.
std::vector<std::vector<std::int32_t>> generate(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const schedule::RequestOptions& request, const GenerateOptions& options = {},
                                                const TokenCallback& on_token = {});

}  // namespace quiver::model
