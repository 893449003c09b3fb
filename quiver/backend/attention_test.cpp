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

/// Shapes are heads, key heads, head_dim, longest segment and seed; no rows but those of a forest.
AttentionPlanPtr plan_of(const Shape& s) {
  RandomStream random(static_cast<std::uint64_t>(s[4]), "attention");
  return plan_forest(random_forest(random, static_cast<std::uint64_t>(s[3])));
}

Description attention_op() {
  std::vector<Shape> shapes;
  std::int64_t seed = 0;
  for (const auto& heads : {Shape{9, 3, 64}, {4, 4, 16}, {2, 1, 24}, {3, 1, 5}, {2, 2, 128}, {2, 1, 8}}) {
    for (const std::int64_t longest : {5, 5, 5, 40, 90}) {
      ++seed;
      for (const auto& [window, has_cap] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {7, 0}, {0, 1}, {30, 1}}) {
        shapes.push_back({heads[0], heads[1], heads[2], longest, seed, window, has_cap});
      }
    }
  }
  const auto cap = [](const Shape& s) { return s[6] > 0 ? 0.7 : 0.0; };
  const auto scale = [](const Shape& s) { return 1 / std::sqrt(static_cast<double>(s[2])); };
  return {.name = "attention",
          .shapes = shapes,
          .arguments =
              [](const Shape& s) {
                const auto rows = plan_of(s)->num_queries;
                return std::vector<Argument>{{draw({rows, s[0], s[2]}, 1)}, {draw({rows, s[1], s[2]}, 2)}, {draw({rows, s[1], s[2]}, 3)}};
              },
          .forward =
              [scale, cap](const Ops& column, const Tensors& in, const Shape& s) {
                return Tensors{column.attention({in[0], in[1], in[2], *windowed(plan_of(s), s[5]), {scale(s), cap(s)}}).out};
              },
          .gradient =
              [scale, cap](const Ops& column, const Tensors& in, const Tensor& dout, const Shape& s) {
                const auto plan = windowed(plan_of(s), s[5]);
                const auto bias = column.attention_bias(*plan, dout.device(), dout.scalar_type());
                const AttentionInput input{in[0], in[1], in[2], *plan, {scale(s), cap(s)}, bias};
                const auto gradient = column.attention_gradient(dout, input, column.attention(input));
                return Tensors{gradient.q, gradient.k, gradient.v};
              },
          .tolerance = rounding({2e-5, 2e-5}, {3e-2, 3e-2})};
}

/// Runs of every kind over a cache of 300 rows: long and short ones, in one piece and in several.
AttentionPlanPtr cached_plan(std::int64_t window) {
  const std::vector<CachedRun> runs = {{.own = {{34, 2}}, .visible = {{0, 20}, {30, 4}}},
                                       {.own = {{140, 150}}, .visible = {{0, 20}}},
                                       {.own = {{22, 1}}, .visible = {{0, 20}}},
                                       {.own = {{90, 4}, {292, 8}, {94, 3}}, .visible = {{0, 20}, {40, 33}}},
                                       {.own = {{100, 5}}, .visible = {}}};
  return windowed(std::make_shared<const AttentionPlan>(plan_over_cache(runs, 300)), window);
}

/// Against a KV cache. No gradient.
Description decoding_op() {
  return {.name = "attention over a cache",
          .shapes = {{6, 2, 20, 0}, {3, 3, 64, 0}, {6, 2, 20, 9}, {4, 1, 32, 70}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({173, s[0], s[2]}, 1)}, {draw({300, s[1], s[2]}, 2)}, {draw({300, s[1], s[2]}, 3)}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape& s) {
                return Tensors{column.attention({in[0], in[1], in[2], *cached_plan(s[3]), {0.3}}).out};
              },
          .tolerance = rounding({1e-5, 1e-5}, {3e-2, 3e-2})};
}

TEST(PlanOverCache, ShowsEachRunWhatIsVisibleAndItsOwnKeysCausally) {
  const auto plan = cached_plan(0);
  EXPECT_EQ(plan->num_queries, 173);
  const auto mask = dense_mask(*plan);
  EXPECT_EQ(plan->num_direct, 2);
  EXPECT_EQ(mask.sum(1)[1].item<std::int64_t>(), 26);             // the last row of the first run
  EXPECT_EQ(mask[2].nonzero().size(0), 21);                       // the first of the second
  EXPECT_EQ(mask[2 + 149].sum().item<std::int64_t>(), 170);       // its last
  EXPECT_EQ(mask[153].sum().item<std::int64_t>(), 54);            // the first of the fourth
  EXPECT_EQ(mask[153 + 14].sum().item<std::int64_t>(), 53 + 15);  // its last sees all of its rows
  EXPECT_TRUE(mask[153 + 5][293].item<bool>() && !mask[153 + 5][294].item<bool>() && !mask[153 + 11][94].item<bool>());
  EXPECT_EQ(mask[168].sum().item<std::int64_t>(), 1);
  // The mask again, from the chunks.
  auto seen = torch::zeros_like(mask);
  for (const auto& chunk : plan->chunks.chunks) {
    std::vector<std::int64_t> keys;
    const auto add = [&](std::int64_t first, std::int64_t length) {
      for (auto key = first; key < first + length; ++key) keys.push_back(key);
    };
    for (auto c = chunk.context_begin; c < chunk.context_end; ++c) {
      add(plan->chunks.context[static_cast<std::size_t>(c)].first, plan->chunks.context[static_cast<std::size_t>(c)].length);
    }
    EXPECT_EQ(std::ssize(keys), chunk.num_context);
    add(chunk.first_row, chunk.num_rows);
    for (auto b = chunk.blocks_begin; b < chunk.blocks_end; ++b) {
      const auto& block = plan->chunks.blocks[static_cast<std::size_t>(b)];
      for (std::int64_t i = 0; i < block.length; ++i) {
        for (std::int64_t key = 0; key <= block.first_key + i; ++key)
          seen[block.first_query + i][keys[static_cast<std::size_t>(key)]] = true;
      }
    }
  }
  for (std::int64_t b = 0; b < plan->num_direct; ++b) {
    const auto& block = plan->blocks[static_cast<std::size_t>(b)];
    seen.narrow(0, block.first_query, block.length).copy_(mask.narrow(0, block.first_query, block.length));
  }
  EXPECT_TRUE(torch::equal(seen, mask));
}

INSTANTIATE_TEST_SUITE_P(Attention, Table, ::testing::Values(attention_op(), decoding_op()), name_of);

}  // namespace
}  // namespace quiver::backend
