#include "quiver/forest/token_forest.h"

#include <gtest/gtest.h>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/testing/message_of.h"

namespace quiver::forest {
namespace {

/// The tokens a row sees, in order, itself last.
std::vector<std::int32_t> visible(const TokenForest& forest, std::int64_t row) {
  const auto segments = forest.segments();
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto& own = segments[s];
    if (row < own.first_row || row >= own.first_row + own.length) continue;
    auto path = forest.ancestors(static_cast<std::int64_t>(s));
    std::vector<std::int32_t> seen;
    for (const auto a : path) {
      const auto& segment = segments[static_cast<std::size_t>(a)];
      for (std::int64_t i = 0; i < segment.length; ++i) seen.push_back(forest.tokens()[segment.first_row + i]);
    }
    for (auto r = own.first_row; r <= row; ++r) seen.push_back(forest.tokens()[r]);
    return seen;
  }
  return {};
}

TEST(BuildBatch, ComputesACommonPrefixOnce) {
  const std::vector<Sequence> sequences = {{{1, 2, 3, 4, 5, 6, 7}, 2}, {{1, 2, 3, 4, 5, 8}, 1}, {{9, 9, 9}, 1}};
  const auto batch = build_batch(sequences);
  EXPECT_EQ(batch.forest.num_rows(), 5 + 1 + 0 + 2);  // the prefix, one child with 6, an empty child, the other tree
  EXPECT_EQ(batch.forest.num_trees(), 2);
  EXPECT_EQ(batch.num_tokens, 16);
  ASSERT_EQ(batch.targets.size(), 4u);
  EXPECT_EQ(batch.targets[0].row, 4);  // 6 is predicted by the parent's last row
  EXPECT_EQ(batch.targets[0].token, 6);
  EXPECT_EQ(batch.targets[2].row, 4);  // and so is 8
  EXPECT_EQ(batch.targets[2].token, 8);
  EXPECT_EQ(batch.targets[2].sequence, 1);
}

TEST(BuildBatch, DoesNotShareShortRuns) {
  const std::vector<Sequence> sequences = {{{1, 2, 3, 4}, 1}, {{1, 2, 5, 6}, 1}};
  EXPECT_EQ(build_batch(sequences, {.min_shared_tokens = 3}).forest.num_rows(), 6);
  EXPECT_EQ(build_batch(sequences, {.min_shared_tokens = 2}).forest.num_rows(), 4);
  EXPECT_EQ(build_batch(sequences, {.share_prefixes = false}).forest.num_trees(), 2);
}

TEST(BuildBatch, SharesLongRunsBelowAShortOne) {
  const std::vector<Sequence> sequences = {
      {{1, 2, 3, 4, 5, 6, 7}, 1}, {{1, 2, 9, 9, 9, 9, 7}, 1}, {{1, 2, 3, 4, 5, 6, 8}, 1}, {{1, 2, 9, 9, 9, 9, 8}, 1}, {{1, 2, 7}, 1}};
  const auto batch = build_batch(sequences, {.min_shared_tokens = 4});
  EXPECT_EQ(batch.forest.num_rows(), 6 + 6 + 2);  // [1 2] thrice, but each pair's six tokens once
  EXPECT_EQ(batch.forest.num_trees(), 3);
  EXPECT_EQ(batch.leaves[0], batch.leaves[2]);
  EXPECT_EQ(batch.leaves[1], batch.leaves[3]);
}

TEST(BuildBatch, KeepsEverySequenceWhole) {
  for (int seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(static_cast<std::uint64_t>(seed), "forest");
    std::vector<Sequence> sequences(1 + random.below(12));
    for (auto& sequence : sequences) {
      const auto size = 1 + random.below(9);
      for (std::uint64_t i = 0; i < size; ++i) sequence.tokens.push_back(static_cast<std::int32_t>(random.below(2)));
      sequence.num_targets = static_cast<std::int64_t>(random.below(size));
    }
    const BatchOptions options{.min_shared_tokens = static_cast<std::int64_t>(1 + random.below(3)),
                               .keep_last_token = random.below(2) == 1};
    const auto batch = build_batch(sequences, options);
    std::size_t next = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      SCOPED_TRACE(i);
      const auto& tokens = sequences[i].tokens;
      for (std::size_t p = tokens.size() - static_cast<std::size_t>(sequences[i].num_targets); p < tokens.size(); ++p) {
        SCOPED_TRACE(p);
        const auto& target = batch.targets.at(next++);
        ASSERT_EQ(target.sequence, static_cast<std::int64_t>(i));
        ASSERT_EQ(target.token, tokens[p]);
        ASSERT_EQ(visible(batch.forest, target.row), std::vector<std::int32_t>(tokens.begin(), tokens.begin() + p));
        ASSERT_EQ(batch.forest.positions()[target.row], static_cast<std::int64_t>(p) - 1);
      }
      if (options.keep_last_token) {
        ASSERT_EQ(visible(batch.forest, batch.last_rows[i]), tokens);
      }
    }
    ASSERT_EQ(next, batch.targets.size());
  }
}

TEST(BuildBatch, RefusesWhatCannotBePredicted) {
  EXPECT_ERROR(build_batch(std::vector<Sequence>{{{}, 0}}), ErrorKind::kUsage, "sequence 0 has no tokens");
  EXPECT_ERROR(build_batch(std::vector<Sequence>{{{1, 2}, 2}}), ErrorKind::kUsage, "sequence 0 has 2 tokens and 2 targets");
}

TEST(BuildBatch, NamesTheSequenceThatItRefuses) {
  const Sequence named{.tokens = {1, 2}, .num_targets = 2, .name = "t.jsonl:3 (task 't')"};
  EXPECT_ERROR(build_batch(std::vector<Sequence>{{{1, 2}, 1}, named}), ErrorKind::kUsage,
               "t.jsonl:3 (task 't') has 2 tokens and 2 targets");
}

TEST(TokenForest, RefusesAParentOfAnotherTree) {
  TokenForest forest;
  const std::vector<std::int32_t> tokens = {1, 2};
  const auto first = forest.add_segment(kNoParent, tokens);
  forest.add_segment(kNoParent, tokens);
  EXPECT_ERROR(forest.add_segment(first, tokens), ErrorKind::kUsage, "segment 2 continues tree 0, but tree 1 was begun since");
  EXPECT_ERROR(forest.add_segment(7, tokens), ErrorKind::kUsage, "parent 7 of segment 2 does not exist");
}

TEST(BuildBatch, SharesPrefixesWithinAGroupAlone) {
  const std::vector<std::int32_t> a = {1, 2, 3, 4, 5, 6, 7}, b = {1, 2, 3, 4, 5, 8, 9};
  const std::vector<Sequence> sequences = {{a, 1, 3}, {b, 1, 0}, {b, 1, 3}, {a, 1, 0}};
  const auto batch = build_batch(sequences);
  EXPECT_EQ(batch.forest.num_rows(), 2 * (5 + 1 + 1));
  EXPECT_EQ(batch.forest.num_trees(), 2);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(batch.forest.segments()[static_cast<std::size_t>(batch.leaves[i])].group, sequences[i].group);
    auto expected = sequences[i].tokens;
    expected.pop_back();
    EXPECT_EQ(visible(batch.forest, batch.last_rows[i]), expected);
  }
}

TEST(BuildBatch, LeavesOutTheGapsBetweenTargets) {
  const Sequence sequence{.tokens = {1, 2, 3, 4, 5, 6, 7, 8}, .num_targets = 6, .gaps = {{3, 5}, {6, 7}}};
  EXPECT_EQ(count_targets(sequence), 3);
  const auto batch = build_batch(std::vector<Sequence>{sequence});
  std::vector<std::pair<std::int64_t, std::int32_t>> found;
  for (const auto& target : batch.targets) found.emplace_back(target.row, target.token);
  EXPECT_EQ(found, (std::vector<std::pair<std::int64_t, std::int32_t>>{{1, 3}, {4, 6}, {6, 8}}));
}

TEST(BuildBatch, RefusesGapsOutOfPlace) {
  const auto build = [](std::vector<TokenSpan> gaps) {
    return build_batch(std::vector<Sequence>{{.tokens = {1, 2, 3, 4, 5}, .num_targets = 3, .gaps = std::move(gaps)}});
  };
  EXPECT_ERROR(build({{1, 3}}), ErrorKind::kUsage, "the gap [1, 3) lies outside its last 3 tokens");  // begins before the targets
  EXPECT_ERROR(build({{3, 6}}), ErrorKind::kUsage, "the gap [3, 6) lies");                            // ends after them
  EXPECT_ERROR(build({{3, 3}}), ErrorKind::kUsage, "the gap [3, 3) lies");                            // holds nothing
  EXPECT_ERROR(build({{3, 4}, {2, 3}}), ErrorKind::kUsage, "the gap [2, 3) lies");                    // out of order
  EXPECT_NO_THROW(build({{2, 3}, {3, 4}}));
}

}  // namespace
}  // namespace quiver::forest
