// Results that a library keeps under the key of their inputs.
#pragma once

#include <nlohmann/json.hpp>
#include <type_traits>

#include "quiver/base/progress.h"
#include "quiver/library/library.h"
#include "quiver/methods/artifact_key.h"

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

}  // namespace quiver::methods
