// The key of a run that answers the requests of a file, so that a later run goes on only with lines of its own.
#pragma once

#include <string_view>

#include "quiver/recipes/adapted_model.h"
#include "quiver/recipes/artifact_key.h"

namespace quiver::recipes {

/// A key begun with all that an adapted model's numbers depend on: the base, its format of prompts, and the choice, adapters by content.
/// `what` names the run and its version. The caller adds requests and options. Throws as adapters::load_peft and Library::open.
ArtifactKey begin_run_key(std::string_view what, const BaseModel& base, const AdapterChoice& choice);

}  // namespace quiver::recipes
