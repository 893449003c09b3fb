// What routers choose for one text, token by token and projection by projection.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "quiver/methods/adapted_model.h"
#include "quiver/model/pass_names.h"

namespace quiver::recipes {

/// Runs the text through the base with the chosen library and returns a trace document (docs/results.md): tokens, adapters, the choices of
/// every token at every adapted projection with their weights, and figures over them:
///
///   entropy    mean of -sum_n w_n ln w_n, and most, ln k
///   margin     mean of w_1 - w_2, the two largest weights
///   agreement  for a token, how likely two of its projections favour the same adapter; the mean over tokens
///   shares     by adapter: its mean weight
///
/// Throws kUsage for an empty text or a method that chooses nothing (family kMerge), kMismatch for hidden states that are not finite,
/// and as adapted_model.
nlohmann::json trace_routes(const methods::BaseModel& base, const methods::AdapterUse& use, const std::string& text, Progress& progress);

/// The same of a prompt of one token or more.
nlohmann::json trace_routes(const methods::BaseModel& base, const methods::AdapterUse& use, const methods::Prompt& prompt,
                            Progress& progress);

/// The figures alone, of a prompt of one token or more. `names` are of the model and the prompt.
nlohmann::json route_statistics(const methods::BaseModel& base, const methods::RoutedAdapters& routed, const methods::Prompt& prompt,
                                const model::PassNames& names, Progress& progress);

}  // namespace quiver::recipes
