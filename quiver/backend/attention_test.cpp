#include "quiver/backend/attention.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/strict_device.h"

namespace quiver::backend {
namespace {

/// A random forest: a few trees, depth up to 4, lengths from 0 up.
forest::TokenForest random_forest(RandomStream& random, std::uint64_t longest) {
  forest::TokenForest forest;
  const auto trees = 1 + random.below(3);
  for (std::uint64_t t = 0; t < trees; ++t) {
    std::vector<std::int64_t> path = {forest::kNoParent};
    const auto segments = 1 + random.below(7);
    for (std::uint64_t s = 0; s < segments; ++s) {
      const std::vector<std::int32_t> tokens(random.below(longest + 1));
      if (s > 0) path.resize(2 + random.below(path.size() - 1));  // go back up, never above the tree's root
      path.push_back(forest.add_segment(s == 0 ? forest::kNoParent : path.back(), tokens));
      if (path.size() > 5) path.resize(5);
    }
  }
  return forest;
}

struct Case {
  std::int64_t heads, kv_heads, dim;
  torch::Dtype dtype;
  double tolerance;
};

class ForestAttention : public ::testing::TestWithParam<Case> {};

/// Both outputs and the gradients of q, k, v for a random upstream gradient.
std::vector<torch::Tensor> run(const std::vector<torch::Tensor>& qkv, const torch::Tensor& dout, const AttentionPlanPtr& plan, double scale,
                               bool reference, torch::Dtype dtype) {
  std::vector<torch::Tensor> leaves;
  for (const auto& t : qkv) leaves.push_back(t.to(dtype).detach().requires_grad_());
  const auto out = reference ? reference_attention(leaves[0], leaves[1], leaves[2], *plan, scale)
                             : forest_attention(leaves[0], leaves[1], leaves[2], plan, scale);
  out.backward(dout.to(dtype));
  std::vector<torch::Tensor> result = {out.detach()};
  for (const auto& t : leaves) result.push_back(t.grad());
  return result;
}

TEST_P(ForestAttention, EqualsItsDefinitionWithGradients) {
  const Case param = GetParam();
  for (int seed = 0; seed < 15; ++seed) {
    RandomStream random(static_cast<std::uint64_t>(seed), "attention");
    const auto forest = random_forest(random, seed < 6 ? 5 : seed < 12 ? 90 : 300);
    const auto plan = plan_forest(forest);
    auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(seed));
    const auto draw = [&](std::int64_t h) {
      return torch::randn({forest.num_rows(), h, param.dim}, generator, torch::kFloat).to(param.dtype);
    };
    const std::vector<torch::Tensor> qkv = {draw(param.heads), draw(param.kv_heads), draw(param.kv_heads)};
    const auto dout = draw(param.heads);
    const double scale = 1 / std::sqrt(static_cast<double>(param.dim));
    const auto expected = run(qkv, dout, plan, scale, true, torch::kDouble);
    const auto actual = run(qkv, dout, plan, scale, false, param.dtype);
    const char* names[] = {"out", "dq", "dk", "dv"};
    for (int i = 0; i < 4; ++i) {
      const auto difference = (actual[i].to(torch::kDouble) - expected[i]).abs();
      const auto bound = param.tolerance * (1 + expected[i].abs());
      EXPECT_TRUE((difference <= bound).all().item<bool>())
          << names[i] << " seed " << seed << " off by " << (difference.numel() ? difference.max().item<double>() : 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ForestAttention,
                         ::testing::Values(Case{9, 3, 64, torch::kFloat, 2e-5}, Case{4, 4, 16, torch::kFloat, 2e-5},
                                           Case{2, 1, 24, torch::kFloat, 2e-5}, Case{3, 1, 5, torch::kFloat, 2e-5},
                                           Case{9, 3, 64, torch::kBFloat16, 3e-2}, Case{2, 2, 128, torch::kBFloat16, 3e-2},
                                           Case{3, 1, 5, torch::kBFloat16, 3e-2}, Case{2, 1, 8, torch::kDouble, 1e-12}));

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

TEST(ForestAttention, DecodesAgainstACacheAsTheDefinitionDoes) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    SCOPED_TRACE(dtype);
    auto generator = at::detail::createCPUGenerator(3);
    auto plan = std::make_shared<AttentionPlan>();
    plan->num_queries = 3;
    plan->num_keys = 40;
    plan->spans = {{0, 20}, {30, 4}, {0, 20}};
    plan->blocks = {{.first_query = 0, .first_key = 34, .length = 2, .spans_begin = 0, .spans_end = 2, .num_visible = 24},
                    {.first_query = 2, .first_key = 22, .length = 1, .spans_begin = 2, .spans_end = 3, .num_visible = 20}};
    const auto draw = [&](std::int64_t rows, std::int64_t heads) {
      return torch::randn({rows, heads, 20}, generator, torch::kFloat).to(dtype);
    };
    const auto q = draw(3, 6), k = draw(40, 2), v = draw(40, 2);
    const auto expected = reference_attention(q.to(torch::kDouble), k.to(torch::kDouble), v.to(torch::kDouble), *plan, 0.3);
    const torch::NoGradGuard no_grad;
    const auto actual = forest_attention(q, k, v, plan, 0.3).to(torch::kDouble);
    EXPECT_TRUE(torch::allclose(actual, expected, 1e-5, dtype == torch::kFloat ? 1e-5 : 2e-2));
  }
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
  EXPECT_ERROR(forest_attention(torch::zeros({2, 2, 4}), torch::zeros({3, 1, 4}), torch::zeros({3, 1, 4}), plan, 1), ErrorKind::kMismatch,
               "attention over 3 queries and 3 keys: q is Float [2, 2, 4]");
  EXPECT_ERROR(forest_attention(torch::zeros({3, 3, 4}), torch::zeros({3, 2, 4}), torch::zeros({3, 2, 4}), plan, 1), ErrorKind::kMismatch,
               "q is Float [3, 3, 4], k is Float [3, 2, 4]");
}

}  // namespace
}  // namespace quiver::backend
