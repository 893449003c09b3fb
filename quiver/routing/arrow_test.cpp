#include "quiver/routing/arrow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::seeded;
using ::testing::HasSubstr;

adapters::LoraPair random_pair(std::uint64_t seed, std::int64_t d_in, std::int64_t d_out, std::int64_t rank) {
  auto generator = seeded(seed);
  return adapters::LoraPair(torch::randn({rank, d_in}, generator), torch::randn({d_out, rank}, generator), 16);
}

using quiver::testing::message_of;

TEST(ArrowPrototype, IsTheTopRightSingularVectorOfTheWholeUpdate) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const auto pair = random_pair(seed, 24, 40, 1 + static_cast<std::int64_t>(seed % 6));
    const auto [u, s, vh] = torch::linalg_svd(pair.lora_b().to(torch::kDouble).matmul(pair.lora_a().to(torch::kDouble)));
    const auto expected = vh[0] * vh[0][vh[0].abs().argmax()].sign();
    const auto prototype = arrow_prototype(pair);
    EXPECT_EQ(prototype.scalar_type(), torch::kFloat);
    EXPECT_TRUE(torch::allclose(prototype.to(torch::kDouble), expected, 1e-6, 1e-7)) << "seed " << seed;
  }
}

TEST(ArrowPrototype, OfRankOneIsTheDirectionOfA) {
  const auto pair = random_pair(3, 16, 8, 1);
  const auto a = pair.lora_a()[0] / pair.lora_a()[0].norm();
  EXPECT_TRUE(torch::allclose(arrow_prototype(pair), a * a[a.abs().argmax()].sign(), 1e-6, 1e-6));
}

TEST(ArrowPrototype, StretchesNoLessThanAnyOtherDirection) {
  const auto pair = random_pair(4, 16, 12, 3);
  auto generator = seeded(5);
  const auto others = torch::randn({1000, 16}, generator);
  const auto stretched = pair.apply(others / others.norm(2, 1, true)).norm(2, 1);
  EXPECT_GE(pair.apply(arrow_prototype(pair)).norm().item<double>(), stretched.max().item<double>());
}

TEST(ArrowPrototype, DoesNotChangeWithTheGaugeOrTheScale) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto pair = random_pair(seed, 20, 14, 4);
    auto generator = seeded(100 + seed);
    const auto m = torch::randn({4, 4}, generator, torch::kDouble) + 3 * torch::eye(4, torch::kDouble);
    const adapters::LoraPair other(m.inverse().matmul(pair.lora_a().to(torch::kDouble)), -7 * pair.lora_b().to(torch::kDouble).matmul(m),
                                   1);
    EXPECT_TRUE(torch::allclose(arrow_prototype(pair), arrow_prototype(other), 1e-5, 1e-6)) << "seed " << seed;
  }
}

TEST(ArrowPrototype, HandlesRanksAboveTheWidthAndUpdatesOfLowerRank) {
  EXPECT_NEAR(arrow_prototype(random_pair(1, 3, 5, 8)).norm().item<double>(), 1, 1e-6);
  const adapters::LoraPair zero(torch::randn({2, 6}, seeded(1)), torch::zeros({4, 2}), 16);
  EXPECT_NEAR(arrow_prototype(zero).norm().item<double>(), 1, 1e-6);
  EXPECT_TRUE(arrow_prototype(zero).equal(arrow_prototype(zero)));
}

TEST(ArrowPrototype, RefusesNan) {
  const adapters::LoraPair pair(torch::full({2, 6}, std::numeric_limits<float>::quiet_NaN()), torch::ones({4, 2}), 16);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { arrow_prototype(pair); }), HasSubstr("NaN"));
}

/// The definition, in float64.
RoutingDecision by_definition(const torch::Tensor& prototypes, const torch::Tensor& x, const ArrowOptions& options) {
  const auto scores = x.to(torch::kDouble).matmul(prototypes.to(torch::kDouble).t()).abs();
  const auto [top, index] = scores.topk(options.top_k, 1);
  return {index, (top / options.temperature).softmax(1)};
}

TEST(ArrowRouter, MatchesTheDefinition) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble, torch::kHalf}) {
    SCOPED_TRACE(dtype);
    for (const std::int64_t num_adapters : {1, 3, 16, 17, 70, 130}) {
      SCOPED_TRACE(num_adapters);
      for (const std::int64_t num_tokens : {0, 1, 5, 8, 37}) {
        SCOPED_TRACE(num_tokens);
        for (const std::int64_t d_in : {1, 15, 48, 50}) {
          SCOPED_TRACE(d_in);
          auto generator = seeded(static_cast<std::uint64_t>(num_adapters * 1000 + num_tokens * 50 + d_in));
          const auto prototypes = torch::randn({num_adapters, d_in}, generator);
          const auto x = torch::randn({num_tokens, d_in}, generator).to(dtype);
          const ArrowOptions options{.top_k = std::min<std::int64_t>(4, num_adapters), .temperature = 0.7};
          const auto decision = ArrowRouter(prototypes, options).route(x);
          const auto expected = by_definition(prototypes, x, options);
          ASSERT_EQ(decision.index.sizes(), (std::vector<std::int64_t>{num_tokens, options.top_k}));
          ASSERT_TRUE(decision.index.equal(expected.index)) << num_adapters << " " << num_tokens << " " << d_in;
          ASSERT_TRUE(torch::allclose(decision.weight.to(torch::kDouble), expected.weight, 1e-4, 1e-6));
          ASSERT_EQ(decision.weight.scalar_type(), torch::kFloat);
        }
      }
    }
  }
}

TEST(ArrowRouter, WeightsSumToOneAndIgnoreTheSignOfTheToken) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    auto generator = seeded(seed);
    const ArrowRouter router(torch::randn({9, 33}, generator), {.top_k = 3});
    const auto x = torch::randn({21, 33}, generator);
    const auto decision = router.route(x);
    const auto mirrored = router.route(-x);
    EXPECT_TRUE(torch::allclose(decision.weight.sum(1), torch::ones({21})));
    EXPECT_TRUE(decision.weight.gt(0).all().item<bool>());
    EXPECT_TRUE(mirrored.index.equal(decision.index));
    EXPECT_TRUE(mirrored.weight.equal(decision.weight));
  }
}

TEST(ArrowRouter, BreaksTiesByTheLowestIndex) {
  const auto same = torch::ones({20, 8}) / std::sqrt(8.0);
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const auto decision = ArrowRouter(same, {.top_k = 3}).route(torch::ones({5, 8}, dtype));
    EXPECT_TRUE(decision.index.equal(torch::arange(3).expand({5, 3})));
    EXPECT_TRUE(torch::allclose(decision.weight, torch::full({5, 3}, 1.0 / 3)));
  }
}

TEST(ArrowRouter, InfiniteTemperatureWeighsAllEqually) {
  const ArrowRouter router(torch::randn({6, 8}, seeded(1)), {.top_k = 6, .temperature = std::numeric_limits<double>::infinity()});
  EXPECT_TRUE(torch::allclose(router.route(torch::randn({3, 8}, seeded(2))).weight, torch::full({3, 6}, 1.0 / 6)));
}

TEST(ArrowRouter, RoutesATokenAloneAsItDoesInABatch) {
  auto generator = seeded(11);
  const ArrowRouter router(torch::randn({70, 50}, generator), {.top_k = 4});
  const auto x = torch::randn({100, 50}, generator);
  const auto whole = router.route(x);
  for (std::int64_t t = 0; t < 100; ++t) {
    SCOPED_TRACE(t);
    const auto alone = router.route(x.narrow(0, t, 1));
    ASSERT_TRUE(alone.index.equal(whole.index.narrow(0, t, 1)));
    ASSERT_TRUE(alone.weight.equal(whole.weight.narrow(0, t, 1)));
  }
}

TEST(ArrowRouter, TakesTokensThatAreNotContiguous) {
  auto generator = seeded(12);
  const ArrowRouter router(torch::randn({5, 12}, generator), {.top_k = 2});
  const auto x = torch::randn({12, 9}, generator).t();
  EXPECT_TRUE(router.route(x).weight.equal(router.route(x.contiguous()).weight));
}

TEST(ArrowRouter, SaysWhatIsWrongWithItsOptions) {
  const auto prototypes = torch::randn({6, 8}, seeded(1));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ArrowRouter(prototypes, {.top_k = 8}); }),
              HasSubstr("top-k 8 is larger than the library of 6 adapters"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ArrowRouter(prototypes, {.top_k = 0}); }), HasSubstr("top-k 0"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ArrowRouter(prototypes, {.top_k = 2, .temperature = 0}); }), HasSubstr("temperature"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ArrowRouter(torch::zeros({6}), {.top_k = 1}); }), HasSubstr("Float [6]"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           ArrowRouter(prototypes, {.top_k = 1}).route(torch::zeros({2, 7}));
                         }),
              HasSubstr("Float [2, 7]"));
}

TEST(ArrowRouter, CalibratesScoresAndAddsTheBiasOfTheGroup) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    for (const std::int64_t num_tokens : {0, 1, 5, 37}) {
      SCOPED_TRACE(num_tokens);
      auto generator = seeded(static_cast<std::uint64_t>(100 + num_tokens));
      const auto prototypes = torch::randn({19, 30}, generator);
      const auto mean = torch::randn({19}, generator), deviation = torch::rand({19}, generator) + 0.5;
      const auto bias = std::make_shared<GroupTable>(19);
      std::vector<GroupLease> leases;
      for (int group = 1; group < 4; ++group) {
        SCOPED_TRACE(group);
        const auto row = torch::randn({19}, generator) * 2;
        leases.push_back(bias->hold(std::span(row.data_ptr<float>(), 19)));
        EXPECT_EQ(*leases.back(), group);
      }
      std::vector<std::int32_t> groups;
      for (std::int64_t t = 0; t < num_tokens; ++t) groups.push_back(static_cast<std::int32_t>(t % 4));
      const auto x = torch::randn({num_tokens, 30}, generator).to(dtype);
      const auto decision = ArrowRouter(prototypes, {.top_k = 3}, {mean, deviation}, bias).route(x, groups);
      auto scores = (x.to(torch::kDouble).matmul(prototypes.to(torch::kDouble).t()).abs() - mean) / deviation;
      for (std::int64_t t = 0; t < num_tokens; ++t) {
        const auto rows = bias->rows();
        const auto row = rows.at(groups[static_cast<std::size_t>(t)]);
        for (std::int64_t n = 0; n < 19; ++n) scores[t][n] += row[static_cast<std::size_t>(n)];
      }
      const auto [top, index] = scores.topk(3, 1);
      ASSERT_TRUE(decision.index.equal(index));
      ASSERT_TRUE(torch::allclose(decision.weight.to(torch::kDouble), top.softmax(1), 1e-4, 1e-5));
    }
  }
}

TEST(ArrowRouter, RefusesACalibrationThatDoesNotFit) {
  const auto prototypes = torch::randn({6, 8}, seeded(1));
  const auto ones = torch::ones({6});
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           ArrowRouter(prototypes, {.top_k = 1}, {torch::ones({5}), ones});
                         }),
              HasSubstr("[6] each"));
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           ArrowRouter(prototypes, {.top_k = 1}, {ones, torch::zeros({6})});
                         }),
              HasSubstr("deviations are not positive"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ArrowRouter(prototypes, {.top_k = 1}, {}, std::make_shared<GroupTable>(5)); }),
              HasSubstr("for 5 adapters in a router over 6"));
  const ArrowRouter router(prototypes, {.top_k = 1}, {}, std::make_shared<GroupTable>(6));
  EXPECT_THAT(message_of(ErrorKind::kInternal,
                         [&] {
                           router.route(torch::zeros({1, 8}), std::vector<std::int32_t>{1});
                         }),
              HasSubstr("group 1 of 1"));
}

}  // namespace
}  // namespace quiver::routing
