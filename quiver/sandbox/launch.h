// Starts the process of a command, watches it, and ends it.
#pragma once

#include <string>

#include "quiver/base/progress.h"
#include "quiver/sandbox/plan.h"

namespace quiver::sandbox {

/// As run(), for any command. Its first word is an absolute path.
Outcome launch(const Command& command, const Limits& limits, Isolation isolation, const StopToken& stop);

/// What to do about a call that failed on the way into a sandbox.
std::string how_to_mend(const Failure& failure);

}  // namespace quiver::sandbox
