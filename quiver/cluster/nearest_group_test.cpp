#include "quiver/cluster/nearest_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::cluster {
namespace {

using adapters::LoraAdapter;
using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// An adapter `noise` away from the centre of group `group`.
LoraAdapter around(std::uint64_t group, std::uint64_t seed, double noise = 0.5) {
  LoraAdapter adapter;
  adapter.name = "g" + std::to_string(group) + "-" + std::to_string(seed);
  std::uint64_t path_seed = 0;
  for (const auto* path : {"layers.0.q_proj", "layers.1.v_proj"}) {
    path_seed += 2;
    const auto factor = [&](torch::IntArrayRef sizes, std::uint64_t which) {
      return draw(sizes, 100 * group + path_seed + which) + noise * draw(sizes, 100000 + 1000 * group + 10 * seed + path_seed + which);
    };
    adapter.pairs.emplace(path, adapters::LoraPair(factor({2, 10}, 0), factor({7, 2}, 1), 4));
  }
  return adapter;
}

TEST(CosinesWith, AreThoseOfTheVectorsThatMbcComparesBy) {
  const auto adapter = around(1, 50);
  const std::vector<LoraAdapter> others = {around(1, 1), around(2, 2), around(3, 3)};
  const auto factors = cosines_with(adapter, others, {.sparsity = 0.6});
  const auto products = cosines_with(adapter, others, {.similarity = Similarity::kProducts});
  ASSERT_EQ(factors.size(), 3);
  const auto cosine = [](const torch::Tensor& x, const torch::Tensor& y) { return (x.dot(y) / (x.norm() * y.norm())).item<double>(); };
  const auto update = [](const LoraAdapter& of) {
    std::vector<torch::Tensor> parts;
    for (const auto& [path, pair] : of.pairs) parts.push_back(pair.to(torch::kCPU, torch::kDouble).delta().reshape(-1));
    return torch::cat(parts);
  };
  for (std::size_t i = 0; i < others.size(); ++i) {
    SCOPED_TRACE(i);
    const auto x = sparsify(adapter_vector(adapter), 0.6).to(torch::kDouble);
    const auto y = sparsify(adapter_vector(others[i]), 0.6).to(torch::kDouble);
    EXPECT_NEAR(factors[i], cosine(x, y), 1e-12);
    EXPECT_NEAR(products[i], cosine(update(adapter), update(others[i])), 1e-9);
  }
  EXPECT_NEAR(cosines_with(adapter, std::vector{adapter}, {})[0], 1, 1e-12);
  EXPECT_TRUE(cosines_with(adapter, {}, {}).empty());
}

TEST(RankGroups, OrdersByTheMeanAndThenByName) {
  const auto ranked = rank_groups({{"c0", {0.5, 0.1}}, {"c1", {0.2}}, {"c2", {0.9, 0.0, 0.0}}, {"c3", {0.25, 0.75, 0.5}}});
  std::vector<std::string> order;
  std::vector<double> means;
  for (const auto& group : ranked) {
    order.push_back(group.group);
    means.push_back(group.mean);
  }
  EXPECT_THAT(order, ElementsAre("c3", "c0", "c2", "c1"));
  EXPECT_EQ(means[0], 0.5);
  EXPECT_NEAR(means[1], 0.3, 1e-15);
  EXPECT_THAT(ranked[1].cosines, ElementsAre(0.5, 0.1));
  const auto equal = rank_groups({{"b", {0.5}}, {"a", {0.25, 0.75}}});
  EXPECT_EQ(equal[0].group, "a");
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { rank_groups({}); }), HasSubstr("no groups"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { rank_groups({{"c0", {}}}); }), HasSubstr("group 'c0' has no members"));
}

TEST(NearestGroups, FindsThePlantedGroupOfANewAdapter) {
  std::map<std::string, std::vector<LoraAdapter>> groups;
  for (std::uint64_t g = 0; g < 4; ++g) {
    for (std::uint64_t i = 0; i < 2 + g; ++i) groups["c" + std::to_string(g)].push_back(around(g, i));
  }
  for (const auto similarity : {Similarity::kFactors, Similarity::kProducts}) {
    SCOPED_TRACE(static_cast<int>(similarity));
    for (std::uint64_t g = 0; g < 4; ++g) {
      SCOPED_TRACE(g);
      const auto ranked = nearest_groups(around(g, 90 + g), groups, {.similarity = similarity});
      ASSERT_EQ(ranked.size(), 4);
      EXPECT_EQ(ranked[0].group, "c" + std::to_string(g));
      EXPECT_EQ(ranked[0].cosines.size(), 2 + g);
      EXPECT_GT(ranked[0].mean, 0.4);
      EXPECT_LT(ranked[1].mean, 0.3);
    }
  }
}

TEST(NearestGroups, RefusesAnAdapterThatCannotBeCompared) {
  auto stranger = around(0, 9);
  stranger.pairs.erase("layers.1.v_proj");
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           nearest_groups(stranger, {{"c0", {around(0, 1)}}}, {});
                         }),
              HasSubstr("adapter 'g0-1' adapts 'layers.1.v_proj' and adapter 'g0-9' does not"));
}

}  // namespace
}  // namespace quiver::cluster
