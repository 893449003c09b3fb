#include "quiver/backend/attention.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/test_support.h"
#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/strict_device.h"

namespace quiver::backend {
namespace {

TEST(ForestAttention, BiasOfADeviceIsTheMask) {
  const auto device = quiver::testing::strict_device();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(seed, "bias");
    const auto plan = plan_forest(random_forest(random, 40));
    const auto bias = attention_bias(*plan, device, torch::kFloat);
    EXPECT_EQ(bias.stride(0) % 16, 0);
    EXPECT_TRUE(torch::equal(bias.cpu().eq(0), dense_mask(*plan))) << seed;
    EXPECT_TRUE(torch::equal(bias.cpu().isinf(), dense_mask(*plan).logical_not())) << seed;
  }
  EXPECT_FALSE(attention_bias({}, torch::kCPU, torch::kFloat).defined());
}

/// The mask again, from the chunks: what each row sees by the numbers of its chunk's keys.
torch::Tensor mask_of_chunks(const AttentionChunks& cut, std::int64_t num_rows) {
  auto seen = torch::zeros({num_rows, num_rows}, torch::kBool);
  for (const auto& chunk : cut.chunks) {
    std::vector<std::int64_t> keys;
    for (auto c = chunk.context_begin; c < chunk.context_end; ++c) {
      const auto& span = cut.context[static_cast<std::size_t>(c)];
      for (std::int64_t i = 0; i < span.length; ++i) keys.push_back(span.first + i);
    }
    EXPECT_EQ(static_cast<std::int64_t>(keys.size()), chunk.num_context);
    for (std::int64_t i = 0; i < chunk.num_rows; ++i) keys.push_back(chunk.first_row + i);
    for (auto b = chunk.blocks_begin; b < chunk.blocks_end; ++b) {
      const auto& block = cut.blocks[static_cast<std::size_t>(b)];
      for (std::int64_t row = 0; row < block.length; ++row) {
        const auto see = [&](std::int64_t key) { seen[block.first_query + row][keys.at(static_cast<std::size_t>(key))] = true; };
        for (auto s = block.spans_begin; s < block.spans_end; ++s) {
          const auto& span = cut.spans[static_cast<std::size_t>(s)];
          for (std::int64_t i = 0; i < span.length; ++i) see(span.first + i);
        }
        for (std::int64_t i = 0; i <= row; ++i) see(block.first_key + i);
      }
    }
  }
  return seen;
}

TEST(AttentionChunks, SeeWhatThePlanSees) {
  for (int seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomStream random(static_cast<std::uint64_t>(seed), "chunks");
    const auto forest = random_forest(random, seed < 10 ? 4 : 30);
    const auto plan = plan_forest(forest);
    for (const std::int64_t rows : {1, 2, 7, 40}) {
      SCOPED_TRACE(rows);
      const auto cut = cut_into_chunks(*plan, rows);
      EXPECT_TRUE(torch::equal(mask_of_chunks(cut, forest.num_rows()), dense_mask(*plan))) << "seed " << seed << ", chunks of " << rows;
      std::int64_t used = 0;
      for (const auto& use : cut.uses) used += use.length;
      for (const auto& chunk : cut.chunks) used -= chunk.num_context;
      EXPECT_EQ(used, 0);
    }
  }
}

TEST(ForestAttention, RefusesShapesThatDoNotFitThePlan) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, std::vector<std::int32_t>{1, 2, 3});
  const auto plan = plan_forest(forest);
  EXPECT_ERROR(forest_attention(torch::zeros({2, 2, 4}), torch::zeros({3, 1, 4}), torch::zeros({3, 1, 4}), plan, {1}), ErrorKind::kMismatch,
               "attention over 3 queries and 3 keys: q is Float [2, 2, 4]");
  EXPECT_ERROR(forest_attention(torch::zeros({3, 3, 4}), torch::zeros({3, 2, 4}), torch::zeros({3, 2, 4}), plan, {1}), ErrorKind::kMismatch,
               "q is Float [3, 3, 4], k is Float [3, 2, 4]");
}

}  // namespace
}  // namespace quiver::backend
