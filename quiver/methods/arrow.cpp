// Arrow (Ostapenko et al. 2024, algorithm 2).
#include "quiver/methods/parts.h"

namespace quiver::methods {

RoutedAdapters make_arrow(const LibraryContext& in, const ArrowChoice& options) {
  RoutedAdapters routed{.adapters = in.adapters, .combine = options.combine};
  const routing::ArrowOptions arrow{.top_k = options.top_k_of(in.adapters.size()), .temperature = options.routing_temperature};
  for (const auto& [path, prototypes] : prototypes_of(in, options)) {
    routed.routers.emplace(path, std::make_shared<routing::ArrowRouter>(finite(in, path, prototypes), arrow));
  }
  return routed;
}

Method arrow() {
  return method_row(Family::kToken,
                    {"arrow", "Arrow", "the top k of |prototype . x|, weighted by their softmax", "Ostapenko et al. 2024, alg. 2"},
                    make_arrow);
}

}  // namespace quiver::methods
