// The methods that keep a whole library at hand and choose from it by token or by prompt (reuse_methods.h).
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/recipes/adapted_model.h"
#include "quiver/routing/attach.h"

namespace quiver::recipes {

/// Adapters, a router at every projection that they adapt, and what decides once per prompt.
struct AdapterBank {
  std::vector<adapters::LoraAdapter> adapters;  ///< those of the library first, in the order given
  std::map<std::string, routing::RouterPtr> routers;
  routing::Combine combine = routing::Combine::kParams;
  std::shared_ptr<PromptChooser> chooser;  ///< null: nothing is decided per prompt
};

/// The bank of a method of the families kToken and kPrompt. Statistics and directions are taken from the library where it has them and
/// stored there where it has not. Throws kUsage for options out of range, as calibrate, and kNotFound where task data is missing.
AdapterBank make_bank(const BaseModel& base, const library::Library& library, std::vector<adapters::LoraAdapter> adapters,
                      const AdapterChoice& choice, Progress& progress);

}  // namespace quiver::recipes
