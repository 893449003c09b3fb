// The skills of Poly or MHR as a task mixes them.
#pragma once

#include <string>

#include "quiver/library/library.h"

namespace quiver::methods {

/// The mixture that serves `task`: an adapter of the skills' rank. Throws kNotFound if the library has no skills of this kind or they
/// were not trained on the task, kMismatch if the skills are not those that the logits are of.
adapters::LoraAdapter task_mixture(const library::Library& library, library::AdapterKind kind, const std::string& task);

}  // namespace quiver::methods
