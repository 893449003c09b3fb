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

}  // namespace quiver::backend
