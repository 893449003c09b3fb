#include "quiver/forest/token_forest.h"

#include <algorithm>
#include <numeric>

#include "quiver/base/error.h"

namespace quiver::forest {

std::int64_t TokenForest::add_segment(std::int64_t parent, std::span<const std::int32_t> tokens, std::int32_t group) {
  const auto index = static_cast<std::int64_t>(segments_.size());
  Segment segment{.parent = parent, .first_row = num_rows(), .length = static_cast<std::int64_t>(tokens.size())};
  if (parent == kNoParent) {
    segment.tree = num_trees_++;
    segment.group = group;
  } else {
    if (parent < 0 || parent >= index) {
      fail(ErrorKind::kUsage, "parent {} of segment {} does not exist", parent, index);
    }
    const Segment& above = segments_[static_cast<std::size_t>(parent)];
    if (above.tree != num_trees_ - 1) {
      fail(ErrorKind::kUsage, "segment {} continues tree {}, but tree {} was begun since; add segments depth first", index, above.tree,
           num_trees_ - 1);
    }
    segment.tree = above.tree;
    segment.group = above.group;
    segment.depth = above.depth + above.length;
  }
  segments_.push_back(segment);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (std::int64_t i = 0; i < segment.length; ++i) positions_.push_back(segment.depth + i);
  return index;
}

std::vector<std::int64_t> TokenForest::ancestors(std::int64_t segment) const {
  std::vector<std::int64_t> path;
  for (auto s = segments_.at(static_cast<std::size_t>(segment)).parent; s != kNoParent; s = segments_[static_cast<std::size_t>(s)].parent) {
    path.push_back(s);
  }
  std::ranges::reverse(path);
  return path;
}

std::string name_of(const Sequence& sequence, std::size_t index) {
  return sequence.name.empty() ? format("sequence {}", index) : sequence.name;
}

std::int64_t count_targets(const Sequence& sequence) {
  auto count = sequence.num_targets;
  for (const auto& gap : sequence.gaps) count -= gap.end - gap.begin;
  return count;
}

namespace {

using Tokens = std::span<const std::int32_t>;

void check_gaps(const Sequence& sequence, std::size_t index) {
  auto free = static_cast<std::int64_t>(sequence.tokens.size()) - sequence.num_targets;  // where the next gap may begin
  for (const auto& gap : sequence.gaps) {
    if (gap.begin < free || gap.end <= gap.begin || gap.end > static_cast<std::int64_t>(sequence.tokens.size())) {
      fail(ErrorKind::kUsage, "{}: the gap [{}, {}) lies outside its last {} tokens, is empty or out of order", name_of(sequence, index),
           gap.begin, gap.end, sequence.num_targets);
    }
    free = gap.end;
  }
}

/// Builds the radix tree of the sequences' tokens, depth first.
class Builder {
 public:
  Builder(std::span<const Sequence> sequences, const BatchOptions& options) : options_(options) {
    batch_.leaves.assign(sequences.size(), kNoParent);
    rows_.resize(sequences.size());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto& sequence = sequences[i];
      const auto size = static_cast<std::int64_t>(sequence.tokens.size());
      if (size == 0) fail(ErrorKind::kUsage, "{} has no tokens", name_of(sequence, i));
      if (sequence.num_targets < 0 || sequence.num_targets > size - 1) {
        fail(ErrorKind::kUsage, "{} has {} tokens and {} targets; the first token cannot be predicted", name_of(sequence, i), size,
             sequence.num_targets);
      }
      check_gaps(sequence, i);
      batch_.num_tokens += size;
      const bool drop = !options.keep_last_token && size > 1;
      bodies_.push_back(Tokens(sequence.tokens).first(static_cast<std::size_t>(drop ? size - 1 : size)));
    }
  }

  ForestBatch build(std::span<const Sequence> sequences) {
    std::vector<std::size_t> order(bodies_.size());
    std::iota(order.begin(), order.end(), 0);
    if (options_.share_prefixes) {
      std::ranges::stable_sort(
          order, [this](std::size_t a, std::size_t b) { return std::ranges::lexicographical_compare(bodies_[a], bodies_[b]); });
    }
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return sequences[i].group; });
    for (std::size_t first = 0, last = 0; first < order.size(); first = last) {
      group_ = sequences[order[first]].group;
      while (last < order.size() && sequences[order[last]].group == group_) ++last;
      place(std::span(order).subspan(first, last - first), 0, kNoParent);
    }
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto& tokens = sequences[i].tokens;
      auto gap = sequences[i].gaps.begin();
      for (std::size_t p = tokens.size() - static_cast<std::size_t>(sequences[i].num_targets); p < tokens.size(); ++p) {
        if (gap != sequences[i].gaps.end() && static_cast<std::int64_t>(p) == gap->begin) {
          p = static_cast<std::size_t>(gap->end) - 1;
          ++gap;
          continue;
        }
        batch_.targets.push_back({rows_[i][p - 1], tokens[p], static_cast<std::int64_t>(i)});
      }
      batch_.last_rows.push_back(rows_[i].back());
    }
    return std::move(batch_);
  }

 private:
  /// Adds the tokens from `depth` on of every sequence of `alike` (sorted, alike up to `depth`) below `parent`: a segment
  /// for each subgroup that has enough tokens in common, and its sequences below that. Where a few tokens are common to
  /// many (the "Question:" of all prompts), these are computed by each subgroup, which may share far more.
  void place(std::span<const std::size_t> alike, std::size_t depth, std::int64_t parent) {
    for (std::size_t first = 0; first < alike.size();) {
      const Tokens body = bodies_[alike[first]];
      if (body.size() == depth) {  // ends where its parent ends: nothing of its own to compute
        batch_.leaves[alike[first++]] = parent;
        continue;
      }
      std::size_t last = first + 1;
      std::size_t end = body.size();
      if (options_.share_prefixes) {
        while (last < alike.size() && num_common(body, bodies_[alike[last]], depth) >= options_.min_shared_tokens) ++last;
        if (last - first > 1) end = depth + static_cast<std::size_t>(num_common(body, bodies_[alike[last - 1]], depth));
      }
      const auto subgroup = alike.subspan(first, last - first);
      const auto segment = add(subgroup, depth, end, parent);
      if (subgroup.size() > 1) place(subgroup, end, segment);
      first = last;
    }
  }

  /// Tokens from `from` on that a and b have in common. In sorted order, what the first and the last of a group have in
  /// common, all between have; and those that share enough tokens with the first follow it.
  static std::int64_t num_common(Tokens a, Tokens b, std::size_t from) {
    const auto limit = std::min(a.size(), b.size());
    auto end = from;
    while (end < limit && a[end] == b[end]) ++end;
    return static_cast<std::int64_t>(end - from);
  }

  std::int64_t add(std::span<const std::size_t> alike, std::size_t begin, std::size_t end, std::int64_t parent) {
    const auto first_row = batch_.forest.num_rows();
    const auto segment = batch_.forest.add_segment(parent, bodies_[alike[0]].subspan(begin, end - begin), group_);
    for (const std::size_t member : alike) {
      for (std::size_t p = begin; p < end; ++p) rows_[member].push_back(first_row + static_cast<std::int64_t>(p - begin));
      batch_.leaves[member] = segment;
    }
    return segment;
  }

  BatchOptions options_;
  std::int32_t group_ = 0;                       // of the sequences being placed
  std::vector<Tokens> bodies_;                   // the tokens that get rows
  std::vector<std::vector<std::int64_t>> rows_;  // per sequence: the row of each of its tokens
  ForestBatch batch_;
};

}  // namespace

ForestBatch build_batch(std::span<const Sequence> sequences, const BatchOptions& options) {
  return Builder(sequences, options).build(sequences);
}

}  // namespace quiver::forest
