// Which keys each query of a batch sees. Plain data, without libtorch, for the kernels' sake.
#pragma once

#include <cstdint>
#include <vector>

namespace quiver::nn {

/// Each query row sees all keys of some spans (its ancestors), and its own segment's keys causally. Queries are rows
/// of the batch; keys are rows of the batch too, or rows of a KV cache.
struct AttentionPlan {
  struct Span {
    std::int64_t first = 0;
    std::int64_t length = 0;
  };
  struct Block {
    std::int64_t first_query = 0;  ///< query row of the block's first token
    std::int64_t first_key = 0;    ///< key row of the same token; query i sees own keys 0..i
    std::int64_t length = 0;
    std::int64_t spans_begin = 0;  ///< its ancestors: spans[spans_begin, spans_end), root first
    std::int64_t spans_end = 0;
    std::int64_t num_visible = 0;  ///< keys in its spans
  };
  /// Blocks [blocks_begin, blocks_end) see only keys [first_key, first_key + num_keys): one tree of the forest.
  struct Tree {
    std::int64_t blocks_begin = 0;
    std::int64_t blocks_end = 0;
    std::int64_t first_key = 0;
    std::int64_t num_keys = 0;
  };
  std::vector<Span> spans;
  std::vector<Block> blocks;
  std::vector<Tree> trees;  ///< empty in plans over a KV cache
  std::int64_t num_queries = 0;
  std::int64_t num_keys = 0;
};

}  // namespace quiver::nn
