// The form that a base takes for its adapters: maps of q, k, v and of gate, up as one or as several.
#pragma once

#include <string>
#include <vector>

#include "quiver/adapters/lora.h"
#include "quiver/methods/method.h"
#include "quiver/model/fusion.h"

namespace quiver::methods {

/// What names linear maps of a base before it is loaded.
struct NamedMaps {
  AdapterSource adapters = {};
  std::vector<std::string> target_modules = {};  ///< of a training; the default ones name nothing
  std::vector<std::string> folders = {};         ///< of adapters
  std::vector<std::string> libraries = {};       ///< all of whose adapters count
};

/// The form in which the base at `path`, empty being the default one, has the maps that are named. Of adapters it reads no more than the
/// heads of files; an adapter of a library that cannot be read is left to whoever loads it. Throws as model::load_spec,
/// adapters::peft_paths of a folder, and Library::open.
model::Fusion fusion_for(const std::string& path, const NamedMaps& maps);

/// The adapter on the maps that a model has: its updates of [q; k; v] and [gate; up] are cut where the model has a map for each part, which
/// changes nothing that it computes. Throws kMismatch for an update of a part that the model holds within one map, and for one whose rows
/// are not those of its map.
adapters::LoraAdapter in_form_of(const model::ModelSpec& spec, adapters::LoraAdapter adapter);

/// in_form_of, and the other way: updates of parts that the model holds within one map become one update of that map, of the sum of their
/// ranks (adapters::stacked). It computes the same, for export; a training would go another way. Throws as these.
adapters::LoraAdapter stacked_in_form_of(const model::ModelSpec& spec, adapters::LoraAdapter adapter);

}  // namespace quiver::methods
