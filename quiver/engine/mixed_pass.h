// One pass over rows of several contexts: the base's products once for all of them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "quiver/engine/context.h"
#include "quiver/model/model.h"

namespace quiver::engine {

/// Which contexts the rows of a pass are of. A row's group (ForwardRows::groups) is an index of `parts`.
struct PassParts {
  struct Part {
    const Context* context = nullptr;
    std::int32_t group = 0;  ///< of the part's rows in the context
  };
  std::vector<Part> parts;
  std::vector<std::int32_t> groups;  ///< of each row of the pass in its context
};

/// The base with an update on every linear map that adds to each row what its context adds there. `parts` is read in a pass and may
/// change between passes. Rows of one context that follow each other are computed together.
///
///   y_t = (W x_t + b) under the updates of row t's context
///
/// A row comes out as by its context's own model, up to rounding: the product below the updates is computed for all rows at once.
model::Model mixed_model(const model::Model& base, const std::shared_ptr<const PassParts>& parts);

}  // namespace quiver::engine
