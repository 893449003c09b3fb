#include "quiver/backend/attention_plan.h"

#include <algorithm>

#include "quiver/backend/row_parts.h"

namespace quiver::backend {
namespace {

using Span = AttentionSpan;
using Block = AttentionBlock;
using Chunk = AttentionChunks::Chunk;

/// Every chunk brings its context along, in time and memory: more of them would not pay.
constexpr std::int64_t kMostChunksOfTree = 8;

/// The rows of each chunk; the rest of it is not set. A tree begins where a block sees none above it.
std::vector<Chunk> cut_rows(const AttentionPlan& plan, std::int64_t rows) {
  std::vector<Chunk> chunks;
  for (std::size_t b = 0; b < plan.blocks.size();) {
    const auto first = plan.blocks[b].first_key;
    auto end = first;
    do {
      end = plan.blocks[b].first_key + plan.blocks[b].length;
      ++b;
    } while (b < plan.blocks.size() && plan.blocks[b].num_visible > 0);
    const auto count = std::min(divide_up(end - first, rows), kMostChunksOfTree);
    const auto size = divide_up(end - first, count);
    for (auto row = first; row < end; row += size) chunks.push_back({.first_row = row, .num_rows = std::min(size, end - row)});
  }
  return chunks;
}

void append(std::vector<Span>& spans, std::size_t begin, Span span) {
  if (span.length == 0) return;
  if (spans.size() > begin && spans.back().first + spans.back().length == span.first) {
    spans.back().length += span.length;
  } else {
    spans.push_back(span);
  }
}

/// All keys that a block's rows from `row` on see before that row.
std::vector<Span> spans_before(const AttentionPlan& plan, const Block& block, std::int64_t row) {
  std::vector<Span> spans(plan.spans.begin() + block.spans_begin, plan.spans.begin() + block.spans_end);
  append(spans, 0, {block.first_key, row - block.first_key});
  return spans;
}

void set_context(AttentionChunks& cut, std::size_t index, const std::vector<Span>& spans) {
  auto& chunk = cut.chunks[index];
  chunk.context_begin = static_cast<std::int64_t>(cut.context.size());
  for (const auto& span : spans) {
    const auto after = std::upper_bound(cut.chunks.begin(), cut.chunks.end(), span.first,
                                        [](std::int64_t row, const Chunk& c) { return row < c.first_row; });
    for (auto owner = static_cast<std::size_t>(after - cut.chunks.begin()) - 1; owner < index; ++owner) {
      const auto& above = cut.chunks[owner];
      const auto first = std::max(span.first, above.first_row);
      const auto length = std::min(span.first + span.length, above.first_row + above.num_rows) - first;
      if (length <= 0) break;
      cut.uses.push_back({static_cast<std::int64_t>(owner), static_cast<std::int64_t>(index), first, chunk.num_context, length});
      cut.context.push_back({first, length});
      chunk.num_context += length;
    }
  }
  chunk.context_end = static_cast<std::int64_t>(cut.context.size());
}

/// A span of rows by the numbers of a chunk's keys, appended to the chunk's spans from `begin` on.
void append_numbered(AttentionChunks& cut, const Chunk& chunk, std::size_t begin, Span span) {
  std::int64_t number = 0;
  for (auto c = chunk.context_begin; c < chunk.context_end; ++c) {
    const auto& context = cut.context[static_cast<std::size_t>(c)];
    const auto first = std::max(span.first, context.first);
    append(cut.spans, begin,
           {number + first - context.first,
            std::max<std::int64_t>(std::min(span.first + span.length, context.first + context.length) - first, 0)});
    number += context.length;
  }
  const auto first = std::max(span.first, chunk.first_row);
  append(cut.spans, begin, {chunk.num_context + first - chunk.first_row, std::max<std::int64_t>(span.first + span.length - first, 0)});
}

}  // namespace

AttentionChunks cut_into_chunks(const AttentionPlan& plan, std::int64_t rows) {
  AttentionChunks cut;
  cut.chunks = cut_rows(plan, rows);
  auto block = plan.blocks.begin();
  for (std::size_t i = 0; i < cut.chunks.size(); ++i) {
    auto& chunk = cut.chunks[i];
    chunk.blocks_begin = static_cast<std::int64_t>(cut.blocks.size());
    const auto end = chunk.first_row + chunk.num_rows;
    for (auto row = chunk.first_row; row < end;) {
      const auto spans = spans_before(plan, *block, row);
      if (row == chunk.first_row) set_context(cut, i, spans);
      const auto piece_end = std::min(block->first_key + block->length, end);
      Block piece{.first_query = row, .first_key = chunk.num_context + row - chunk.first_row, .length = piece_end - row};
      const auto begin = cut.spans.size();
      for (const auto& span : spans) {
        append_numbered(cut, chunk, begin, span);
        piece.num_visible += span.length;
      }
      piece.spans_begin = static_cast<std::int64_t>(begin);
      piece.spans_end = static_cast<std::int64_t>(cut.spans.size());
      cut.blocks.push_back(piece);
      row = piece_end;
      if (row == block->first_key + block->length) ++block;
    }
    chunk.blocks_end = static_cast<std::int64_t>(cut.blocks.size());
  }
  std::stable_sort(cut.uses.begin(), cut.uses.end(), [](const auto& a, const auto& b) { return a.owner < b.owner; });
  return cut;
}

namespace {

/// Fewer queries of a run than these go key by key: packing the keys costs more.
constexpr std::int64_t kLeastChunkRows = 5;
/// Queries of a chunk over a cache, and of a block that goes key by key.
constexpr std::int64_t kCachedChunkRows = 128, kDirectRows = 16;

std::int64_t count_keys(const std::vector<Span>& spans) {
  std::int64_t count = 0;
  for (const auto& span : spans) count += span.length;
  return count;
}

/// The blocks of a run, one for each run of its rows or more, none longer than `most`.
void append_blocks(AttentionPlan& plan, const CachedRun& run, std::int64_t first_query, std::int64_t most) {
  auto seen = run.visible;
  for (const auto& own : run.own) {
    for (std::int64_t done = 0; done < own.length;) {
      const auto length = std::min(most, own.length - done);
      Block block{.first_query = first_query, .first_key = own.first + done, .length = length};
      block.spans_begin = static_cast<std::int64_t>(plan.spans.size());
      plan.spans.insert(plan.spans.end(), seen.begin(), seen.end());
      block.spans_end = static_cast<std::int64_t>(plan.spans.size());
      block.num_visible = count_keys(seen);
      plan.blocks.push_back(block);
      append(seen, 0, {own.first + done, length});
      first_query += length;
      done += length;
    }
  }
}

/// Keys [0, first) of a chunk, and `length` more that the queries see causally.
void append_block(AttentionChunks& cut, std::int64_t first_query, std::int64_t visible, std::int64_t first_key, std::int64_t length) {
  const auto begin = static_cast<std::int64_t>(cut.spans.size());
  if (visible > 0) cut.spans.push_back({0, visible});
  cut.blocks.push_back({first_query, first_key, length, begin, static_cast<std::int64_t>(cut.spans.size()), visible});
}

/// A chunk whose keys are those of the spans, in order. The kernel wants one run of rows at the end.
void append_chunk(AttentionChunks& cut, const std::vector<Span>& keys, std::int64_t blocks_begin) {
  Chunk chunk{.blocks_begin = blocks_begin, .blocks_end = static_cast<std::int64_t>(cut.blocks.size())};
  chunk.context_begin = static_cast<std::int64_t>(cut.context.size());
  cut.context.insert(cut.context.end(), keys.begin(), keys.end() - 1);
  chunk.context_end = static_cast<std::int64_t>(cut.context.size());
  chunk.num_context = count_keys(keys) - keys.back().length;
  chunk.first_row = keys.back().first;
  chunk.num_rows = keys.back().length;
  cut.chunks.push_back(chunk);
}

/// The first `count` keys of the spans.
std::vector<Span> first_keys(const std::vector<Span>& spans, std::int64_t count) {
  std::vector<Span> first;
  for (const auto& span : spans) {
    append(first, 0, {span.first, std::clamp<std::int64_t>(count, 0, span.length)});
    count -= span.length;
  }
  return first;
}

/// The chunks of a long run: each brings the keys along that it sees.
void append_chunks(AttentionChunks& cut, const CachedRun& run, std::int64_t first_query) {
  const auto visible = count_keys(run.visible), length = count_keys(run.own);
  auto keys = run.visible;
  for (const auto& own : run.own) append(keys, 0, own);
  const auto size = divide_up(length, std::min(divide_up(length, kCachedChunkRows), kMostChunksOfTree));
  for (std::int64_t done = 0; done < length; done += size) {
    const auto count = std::min(size, length - done);
    const auto blocks_begin = static_cast<std::int64_t>(cut.blocks.size());
    append_block(cut, first_query + done, visible + done, visible + done, count);
    append_chunk(cut, first_keys(keys, visible + done + count), blocks_begin);
  }
}

}  // namespace

AttentionPlan plan_over_cache(const std::vector<CachedRun>& runs, std::int64_t num_keys) {
  AttentionPlan plan{.num_keys = num_keys};
  std::vector<std::int64_t> first_query;
  for (const auto& run : runs) {
    first_query.push_back(plan.num_queries);
    plan.num_queries += count_keys(run.own);
  }
  const auto is_direct = [&](const CachedRun& run) { return count_keys(run.own) < kLeastChunkRows; };
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (is_direct(runs[i])) append_blocks(plan, runs[i], first_query[i], kDirectRows);
  }
  plan.num_direct = static_cast<std::int64_t>(plan.blocks.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (is_direct(runs[i])) continue;
    append_blocks(plan, runs[i], first_query[i], count_keys(runs[i].own));
    append_chunks(plan.chunks, runs[i], first_query[i]);
  }
  return plan;
}

}  // namespace quiver::backend
