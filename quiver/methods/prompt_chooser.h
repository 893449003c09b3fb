// Decisions that are made once per prompt.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/observe.h"
#include "quiver/routing/group_table.h"

namespace quiver::methods {

/// Decides once per prompt, before what follows it is computed. Thread-safe.
class PromptChooser {
 public:
  virtual ~PromptChooser() = default;
  /// The group (forest::Sequence::group) of each prompt: prompts that are served alike may share one. Runs the base model.
  /// A group is the prompt's for as long as the lease lives.
  virtual std::vector<routing::GroupLease> groups_of(std::span<const Prompt> prompts, Progress& progress) = 0;
  /// Forgets all prompts, so that what follows does not depend on them. Leases go on.
  virtual void forget() = 0;
};

}  // namespace quiver::methods
