// What the reader and the dequantiser of GGUF share.
#pragma once

#include <cstdint>
#include <optional>

#include "quiver/io/gguf.h"

namespace quiver::io {

/// A quantised row is a sequence of blocks: `num_values` values in `num_bytes` bytes. Plain types have blocks of one.
struct BlockLayout {
  std::int64_t num_values;
  std::int64_t num_bytes;
};

/// nullopt for a number that is no GgufType.
std::optional<BlockLayout> find_block_layout(GgufType type);

}  // namespace quiver::io
