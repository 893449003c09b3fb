// Decisions that are made once per prompt.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/observe.h"

namespace quiver::methods {

/// Decides once per prompt, before what follows it is computed. Not thread-safe.
class PromptChooser {
 public:
  virtual ~PromptChooser() = default;
  /// The group (forest::Sequence::group) of each prompt: prompts that are served alike may share one. Runs the base model.
  /// Groups are valid until the next call, which may drop those of earlier calls to bound memory.
  virtual std::vector<std::int32_t> groups_of(std::span<const Prompt> prompts, Progress& progress) = 0;
  /// Forgets all prompts and their groups, so that what follows does not depend on them.
  virtual void forget() = 0;
};

}  // namespace quiver::methods
