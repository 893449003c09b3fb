// Paths of modules: "layers.3.self_attn.q_proj", "transformer.h.3.attn.c_attn", "lm_head".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quiver {

/// The block that a module is in.
struct BlockOfPath {
  std::string name;         ///< "transformer.h.3"; the whole path for a module outside of blocks
  std::int64_t number = 0;  ///< 3; 0 outside
};

/// By the first part of the path that is a number. Families name their blocks differently, and all number them.
BlockOfPath block_of(std::string_view path);

}  // namespace quiver
