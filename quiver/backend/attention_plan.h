// Which keys each query of a batch sees. Plain data, without libtorch, for the kernels' sake.
#pragma once

#include <cstdint>
#include <vector>

namespace quiver::backend {

/// Keys [first, first + length).
struct AttentionSpan {
  std::int64_t first = 0;
  std::int64_t length = 0;
};

/// A run of queries that see all keys of some spans (their ancestors), and their own segment's keys causally.
struct AttentionBlock {
  std::int64_t first_query = 0;  ///< query row of the block's first token
  std::int64_t first_key = 0;    ///< key row of the same token; query i sees own keys 0..i
  std::int64_t length = 0;
  std::int64_t spans_begin = 0;  ///< its ancestors: spans[spans_begin, spans_end), root first
  std::int64_t spans_end = 0;
  std::int64_t num_visible = 0;  ///< keys in its spans
};

/// A batch cut into shares of work. A chunk is a run of rows of one tree; with the ancestors of its first row, its context, it holds every
/// key that its rows see: a later row's ancestors are among these or are rows of the chunk. The chunk's keys are numbered from 0: the
/// context's, then its own. Over a KV cache a chunk's rows are rows of the cache.
struct AttentionChunks {
  struct Chunk {
    std::int64_t blocks_begin = 0, blocks_end = 0;
    std::int64_t context_begin = 0, context_end = 0;  ///< context[context_begin, context_end), in order of rows
    std::int64_t num_context = 0;                     ///< keys of the context
    std::int64_t first_row = 0, num_rows = 0;
    std::int64_t num_keys() const { return num_context + num_rows; }
  };
  /// Rows of one chunk that are context of another.
  struct Use {
    std::int64_t owner = 0, user = 0;  ///< chunks
    std::int64_t first_row = 0;
    std::int64_t first_key = 0;  ///< its number in the user
    std::int64_t length = 0;
  };
  std::vector<Chunk> chunks;
  std::vector<AttentionSpan> context;
  std::vector<AttentionBlock> blocks;  ///< those of the forest, cut where chunks begin; keys numbered as in the chunk
  std::vector<AttentionSpan> spans;
  std::vector<Use> uses;  ///< sorted by owner, then by user
};

/// Queries are rows of the batch; keys are rows of the batch too, or rows of a KV cache.
struct AttentionPlan {
  std::vector<AttentionSpan> spans;
  std::vector<AttentionBlock> blocks;
  std::int64_t num_queries = 0;
  std::int64_t num_keys = 0;
  std::int64_t window = 0;  ///< a query sees the last `window` keys of its path, its own among them; 0: all. Spans may hold keys beyond.
  std::int64_t num_direct = 0;  ///< the first so many blocks, each of few queries, go key by key; all others are in chunks
  AttentionChunks chunks;
};

/// Queries of a batch whose tokens follow each other in a text, with the rows of a KV cache that hold keys and values: their own, and those
/// of all tokens before them, in order.
struct CachedRun {
  std::vector<AttentionSpan> own, visible;
};
/// The plan of runs over a KV cache of `num_keys` rows; the queries of one come after those of another.
AttentionPlan plan_over_cache(const std::vector<CachedRun>& runs, std::int64_t num_keys);

/// Cuts each tree of a plan over the batch's own rows into equal chunks, of `rows` rows or fewer, but never into more
/// than a few. The result depends on nothing else, so sums over chunks are the same whoever computes them.
AttentionChunks cut_into_chunks(const AttentionPlan& plan, std::int64_t rows);

}  // namespace quiver::backend
