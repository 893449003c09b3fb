// Which adapters a model computes with: the one choice that scoring, generation and evaluation share.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quiver/library/library.h"
#include "quiver/recipes/base_model.h"
#include "quiver/routing/attach.h"

namespace quiver::recipes {

/// No adapter at all, one PEFT folder, or a library with a method.
struct AdapterChoice {
  std::string adapter;             ///< a PEFT folder; excludes `library`
  std::string library;             ///< a library folder
  std::string method = "arrow";    ///< of the library: "mean", "arrow" or "oracle=NAME"
  std::vector<std::string> names;  ///< adapters of the library to use; empty: all of `kind`
  std::string kind;                ///< "private", "cluster", "shared", "imported"; empty: see library_members
  std::int64_t top_k = 0;          ///< Arrow; 0: the paper's 4, or all of a smaller library
  double temperature = 1;          ///< Arrow
  std::string combine = "params";  ///< Arrow: "params" or "outputs"
  bool allow_other_base = false;
};

/// The adapters a choice uses, in name order: those named; else those of `kind`; else the private and imported ones, or
/// if there are none, the cluster adapters. Throws kNotFound if that leaves none.
std::vector<std::string> library_members(const library::Library& library, const AdapterChoice& choice);

/// Arrow prototypes of the adapters, taken from the library where it has them and stored there where it has not: one
/// artifact per adapter, so that a new adapter costs one.
routing::PrototypeMap library_prototypes(const library::Library& library, std::span<const lora::LoraAdapter> adapters);

/// The base model computing with the chosen adapters. `recorder`, which must outlive the model, counts what Arrow chooses.
/// Throws kUsage for a contradictory choice or a top_k beyond the library, kNotFound, kMismatch (check_fits).
model::Llama adapted_model(const BaseModel& base, const AdapterChoice& choice, routing::RoutingRecorder* recorder = nullptr);

}  // namespace quiver::recipes
