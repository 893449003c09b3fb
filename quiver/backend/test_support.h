// What tests of the backend share.
#pragma once

#include <cstdint>
#include <vector>

#include "quiver/base/random.h"
#include "quiver/forest/token_forest.h"

namespace quiver::backend {

/// A random forest: a few trees, depth up to 4, lengths from 0 up.
inline forest::TokenForest random_forest(RandomStream& random, std::uint64_t longest) {
  forest::TokenForest forest;
  const auto trees = 1 + random.below(3);
  for (std::uint64_t t = 0; t < trees; ++t) {
    std::vector<std::int64_t> path = {forest::kNoParent};
    const auto segments = 1 + random.below(7);
    for (std::uint64_t s = 0; s < segments; ++s) {
      const std::vector<std::int32_t> tokens(random.below(longest + 1));
      if (s > 0) path.resize(2 + random.below(path.size() - 1));  // go back up, never above the tree's root
      path.push_back(forest.add_segment(s == 0 ? forest::kNoParent : path.back(), tokens));
      if (path.size() > 5) path.resize(5);
    }
  }
  return forest;
}

}  // namespace quiver::backend
