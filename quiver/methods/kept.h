// Results that a library keeps under the key of their inputs.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/library/library.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/methods/in_parallel.h"

namespace quiver::methods {

/// compute(inputs, progress), or what the library keeps of an earlier call with equal inputs. `compute` is a plain function, not a closure:
/// it sees the inputs that are in the key, and nothing else. `about` says what the tensors are, beside `what` (ArtifactKey).
template <typename Inputs>
tensor::TensorMap kept_in(const library::Library& library, const char* what, nlohmann::json about, const Inputs& inputs,
                          tensor::TensorMap (*compute)(const std::type_identity_t<Inputs>&, Progress&), Progress& progress) {
  const auto key = ArtifactKey(what).add(inputs).hex();
  if (auto found = library.find_artifact(key)) return *std::move(found);
  auto result = compute(inputs, progress);
  about["what"] = what;
  library.store_artifact(key, result, about);
  return result;
}

/// The same for several inputs at once: `compute` is given those that the library has not. `about[i]` is of inputs[i].
template <typename Inputs>
std::vector<tensor::TensorMap> kept_all_in(const library::Library& library, const char* what, std::vector<nlohmann::json> about,
                                           const std::vector<Inputs>& inputs,
                                           std::vector<tensor::TensorMap> (*compute)(std::span<const Inputs* const>, Progress&),
                                           Progress& progress) {
  std::vector<tensor::TensorMap> results(inputs.size());
  std::vector<std::string> keys(inputs.size());
  std::vector<char> is_found(inputs.size(), false);
  in_parallel(inputs.size(), [&](std::size_t i) {
    keys[i] = ArtifactKey(what).add(inputs[i]).hex();
    auto found = library.find_artifact(keys[i]);
    is_found[i] = found.has_value();
    if (found) results[i] = *std::move(found);
  });
  std::vector<const Inputs*> missing;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!is_found[i]) missing.push_back(&inputs[i]);
  }
  if (missing.empty()) return results;
  auto computed = compute(missing, progress);
  for (std::size_t m = 0; m < missing.size(); ++m) {
    const auto i = static_cast<std::size_t>(missing[m] - inputs.data());
    about[i]["what"] = what;
    results[i] = std::move(computed.at(m));
    library.store_artifact(keys[i], results[i], about[i]);
  }
  return results;
}

}  // namespace quiver::methods
