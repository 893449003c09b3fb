#include "quiver/routing/routed_update.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/routing/arrow.h"
#include "quiver/routing/baselines.h"
#include "quiver/testing/dense_mixture.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::dense_mixture;
using quiver::testing::seeded;
using ::testing::HasSubstr;

constexpr Combine kBoth[] = {Combine::kParams, Combine::kOutputs};

/// A base of width d_in -> d_out with `ranks.size()` random adapters.
struct Bank {
  Bank(std::uint64_t seed, std::int64_t d_in, std::int64_t d_out, const std::vector<std::int64_t>& ranks,
       torch::Dtype dtype = torch::kFloat) {
    auto generator = seeded(seed);
    const auto scale = 1 / std::sqrt(static_cast<double>(d_in));
    weight = (torch::randn({d_out, d_in}, generator) * scale).to(dtype);
    for (const auto rank : ranks) {
      pairs.emplace_back(torch::randn({rank, d_in}, generator) * scale, torch::randn({d_out, rank}, generator) * 0.5, 8);
      rows.push_back(torch::randn({d_in}, generator));
    }
  }
  nn::Linear base() const { return nn::Linear(weight); }
  RouterPtr arrow(std::int64_t top_k) const { return std::make_shared<ArrowRouter>(torch::stack(rows), ArrowOptions{.top_k = top_k}); }
  backend::RoutedAdapters packed() const {
    std::vector<backend::LoraFactors> factors;
    for (const auto& pair : pairs) factors.push_back({pair.lora_a(), pair.lora_b(), pair.scaling()});
    return backend::pack_adapters(factors, torch::kCPU);
  }
  nn::Linear routed(RouterPtr router, Combine combine) const {
    return base().with(std::make_shared<RoutedUpdate>(base(), pairs, std::move(router), combine));
  }

  torch::Tensor weight;
  std::vector<adapters::LoraPair> pairs;
  std::vector<torch::Tensor> rows;
};

torch::Tensor tokens_of(std::uint64_t seed, std::int64_t num_tokens, std::int64_t d_in, torch::Dtype dtype = torch::kFloat) {
  auto generator = seeded(seed);
  return torch::randn({num_tokens, d_in}, generator).to(dtype);
}

using quiver::testing::message_of;

struct Precision {
  torch::Dtype dtype;
  double tolerance;
};

class RoutedUpdatePrecision : public ::testing::TestWithParam<Precision> {};

TEST_P(RoutedUpdatePrecision, MatchesTheDefinitionOverManyShapes) {
  const auto [dtype, tolerance] = GetParam();
  RandomStream random(42, "shapes");
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    const auto pick = [&](std::int64_t low, std::int64_t high) {
      return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1)));
    };
    const auto num_adapters = pick(1, 24);
    const auto d_in = pick(1, 90);
    const auto d_out = pick(1, 150);
    const auto rank = pick(1, 11);
    const auto top_k = pick(1, num_adapters);
    const std::int64_t num_tokens = seed % 10 == 0 ? 0 : seed % 10 == 1 ? 1 : pick(2, 150);
    const Bank bank(seed, d_in, d_out, std::vector<std::int64_t>(static_cast<std::size_t>(num_adapters), rank), dtype);
    const auto router = bank.arrow(top_k);
    const auto x = tokens_of(seed + 1000, num_tokens, d_in, dtype);
    for (const auto combine : kBoth) {
      SCOPED_TRACE(static_cast<int>(combine));
      const auto y = bank.routed(router, combine).forward(x);
      const auto expected = dense_mixture(bank.weight, bank.pairs, router->route(x), x, combine);
      ASSERT_EQ(y.scalar_type(), dtype);
      ASSERT_EQ(y.sizes(), (std::vector<std::int64_t>{num_tokens, d_out}));
      ASSERT_TRUE(torch::allclose(y.to(torch::kDouble), expected, tolerance, tolerance))
          << "N " << num_adapters << " d_in " << d_in << " d_out " << d_out << " r " << rank << " k " << top_k << " T " << num_tokens
          << ": " << (y.to(torch::kDouble) - expected).abs().max().item<double>();
    }
  }
}

TEST_P(RoutedUpdatePrecision, MixesOutputsOfUnequalRanks) {
  const auto [dtype, tolerance] = GetParam();
  const Bank bank(5, 50, 70, {1, 8, 3, 4, 6}, dtype);
  const auto router = bank.arrow(3);
  const auto x = tokens_of(6, 40, 50, dtype);
  const auto expected = dense_mixture(bank.weight, bank.pairs, router->route(x), x, Combine::kOutputs);
  const auto y = bank.routed(router, Combine::kOutputs).forward(x);
  EXPECT_TRUE(torch::allclose(y.to(torch::kDouble), expected, tolerance, tolerance));
}

TEST_P(RoutedUpdatePrecision, ReadsNoAdapterThatWasNotChosen) {
  const auto [dtype, tolerance] = GetParam();
  for (const auto combine : kBoth) {
    SCOPED_TRACE(static_cast<int>(combine));
    const Bank clean(7, 40, 70, {4, 4, 4, 4, 4, 4}, dtype);
    const auto x = tokens_of(8, 30, 40, dtype);
    const auto expected = clean.routed(std::make_shared<FixedRouter>(6, 2), combine).forward(x);
    Bank poisoned = clean;
    for (const std::size_t i : {0, 1, 3, 4, 5}) {
      const auto nan = std::numeric_limits<float>::quiet_NaN();
      poisoned.pairs[i] = adapters::LoraPair(torch::full({4, 40}, nan), torch::full({70, 4}, nan), 8);
    }
    const auto y = poisoned.routed(std::make_shared<FixedRouter>(6, 2), combine).forward(x);
    EXPECT_TRUE(y.equal(expected));
    const auto bad = poisoned.routed(std::make_shared<FixedRouter>(6, 3), combine).forward(x);
    EXPECT_TRUE(bad.isnan().all().item<bool>());  // the poison works
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RoutedUpdatePrecision,
                         ::testing::Values(Precision{torch::kFloat, 2e-5}, Precision{torch::kBFloat16, 3e-2},
                                           Precision{torch::kDouble, 1e-6}, Precision{torch::kHalf, 1e-2}),
                         [](const auto& param) { return std::string(torch::toString(param.param.dtype)); });

TEST(RoutedUpdate, ComputesATokenAloneAsInABatch) {
  const Bank bank(21, 50, 100, std::vector<std::int64_t>(12, 5));
  const auto x = tokens_of(22, 130, 50);
  for (const auto combine : kBoth) {
    auto whole = torch::zeros({130, 100});
    const auto packed = bank.packed();
    const auto router = bank.arrow(4);
    backend::add_routed(packed, x, router->route(x), combine, whole);
    for (std::int64_t t = 0; t < 130; ++t) {
      auto alone = torch::zeros({1, 100});
      const auto token = x.narrow(0, t, 1);
      backend::add_routed(packed, token, router->route(token), combine, alone);
      ASSERT_TRUE(alone.equal(whole.narrow(0, t, 1))) << t;
    }
  }
}

TEST(RoutedUpdate, AddsWhatItsForwardAdds) {
  const Bank bank(5, 40, 24, {3, 3, 3, 3});
  const auto x = tokens_of(6, 5, 40);
  for (const auto combine : kBoth) {
    const RoutedUpdate update(bank.base(), bank.pairs, bank.arrow(2), combine);
    auto y = bank.base().forward(x).contiguous();
    const auto expected = bank.routed(bank.arrow(2), combine).forward(x);
    auto part = y.clone();
    update.add_to(x, 0, x.size(0), {}, y);
    EXPECT_TRUE(torch::equal(y, expected));
    update.add_to(x, 2, 4, {}, part);
    EXPECT_TRUE(torch::equal(part.narrow(0, 2, 2), expected.narrow(0, 2, 2)));
    EXPECT_FALSE(torch::equal(part[1], expected[1]));
  }
}

TEST(RoutedUpdate, DoesNotDependOnTheNumberOfThreads) {
  const Bank bank(23, 64, 100, std::vector<std::int64_t>(12, 4));
  const auto x = tokens_of(24, 300, 64);
  auto many = torch::zeros({300, 100});
  auto one = torch::zeros({300, 100});
  const auto packed = bank.packed();
  const auto decision = bank.arrow(4)->route(x);
  backend::add_routed(packed, x, decision, Combine::kParams, many);
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  backend::add_routed(packed, x, decision, Combine::kParams, one);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(many));
}

TEST(RoutedUpdate, OfOneAdapterIsThatAdapter) {
  for (const auto combine : kBoth) {
    SCOPED_TRACE(static_cast<int>(combine));
    const Bank bank(31, 30, 20, {4});
    const auto x = tokens_of(32, 17, 30);
    const auto expected = bank.base().forward(x) + bank.pairs[0].apply(x);
    EXPECT_TRUE(torch::allclose(bank.routed(bank.arrow(1), combine).forward(x), expected, 1e-5, 1e-5));
  }
}

TEST(RoutedUpdate, OfIdenticalAdaptersIsThatAdapter) {
  for (const auto combine : kBoth) {
    SCOPED_TRACE(static_cast<int>(combine));
    Bank bank(33, 30, 20, {4, 4, 4, 4});
    std::fill(bank.pairs.begin(), bank.pairs.end(), bank.pairs[0]);
    const auto x = tokens_of(34, 17, 30);
    const auto expected = bank.base().forward(x) + bank.pairs[0].apply(x);
    EXPECT_TRUE(torch::allclose(bank.routed(bank.arrow(3), combine).forward(x), expected, 1e-5, 1e-5));
  }
}

TEST(RoutedUpdate, AtInfiniteTemperatureOverAllAdaptersIsTheAverageOfTheFactors) {
  const Bank bank(35, 30, 20, {4, 4, 4});
  auto a = torch::zeros({4, 30});
  auto b = torch::zeros({20, 4});
  for (const auto& pair : bank.pairs) {
    a += pair.lora_a() / 3;
    b += pair.lora_b() / 3;
  }
  const auto x = tokens_of(36, 17, 30);
  const auto expected = bank.base().forward(x) + adapters::LoraPair(a, b, 8).apply(x);
  const auto arrow = std::make_shared<ArrowRouter>(torch::stack(bank.rows),
                                                   ArrowOptions{.top_k = 3, .temperature = std::numeric_limits<double>::infinity()});
  EXPECT_TRUE(torch::allclose(bank.routed(arrow, Combine::kParams).forward(x), expected, 1e-5, 1e-5));
  const auto uniform = std::make_shared<UniformRouter>(3);
  EXPECT_TRUE(torch::allclose(bank.routed(uniform, Combine::kParams).forward(x), expected, 1e-5, 1e-5));
}

TEST(RoutedUpdate, IsInvariantToTheOrderOfTheAdapters) {
  for (const auto combine : kBoth) {
    SCOPED_TRACE(static_cast<int>(combine));
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(seed);
      Bank bank(seed, 30, 20, std::vector<std::int64_t>(2 + seed % 7, 3));
      const auto x = tokens_of(seed + 50, 17, 30);
      const auto y = bank.routed(bank.arrow(2), combine).forward(x);
      std::reverse(bank.pairs.begin(), bank.pairs.end());
      std::reverse(bank.rows.begin(), bank.rows.end());
      EXPECT_TRUE(torch::allclose(bank.routed(bank.arrow(2), combine).forward(x), y, 1e-5, 1e-5));
    }
  }
}

TEST(RoutedUpdate, MixedByOutputsDoesNotChangeWithTheGauge) {
  const Bank bank(37, 30, 20, {4, 4, 4});
  Bank other = bank;
  auto generator = seeded(38);
  for (auto& pair : other.pairs) {
    const auto m = torch::randn({4, 4}, generator) + 3 * torch::eye(4);
    pair = adapters::LoraPair(m.inverse().matmul(pair.lora_a()), pair.lora_b().matmul(m), 8);
  }
  const auto x = tokens_of(39, 17, 30);
  const auto y = bank.routed(bank.arrow(2), Combine::kOutputs).forward(x);
  EXPECT_TRUE(torch::allclose(other.routed(bank.arrow(2), Combine::kOutputs).forward(x), y, 1e-4, 1e-4));
  EXPECT_FALSE(torch::allclose(other.routed(bank.arrow(2), Combine::kParams).forward(x),
                               bank.routed(bank.arrow(2), Combine::kParams).forward(x), 1e-2, 1e-2));
}

TEST(RoutedUpdate, OfZeroUpdatesIsTheBaseBitForBit) {
  Bank bank(40, 30, 20, {2, 2}, torch::kBFloat16);
  for (auto& pair : bank.pairs) pair = adapters::LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), 8);
  const auto x = tokens_of(41, 17, 30, torch::kBFloat16);
  EXPECT_TRUE(bank.routed(bank.arrow(1), Combine::kParams).forward(x).equal(bank.base().forward(x)));
}

TEST(RoutedUpdate, KeepsNanOfABfloat16Token) {
  const Bank bank(42, 30, 70, {2, 2}, torch::kBFloat16);
  auto x = tokens_of(43, 5, 30, torch::kBFloat16);
  x[3].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto y = bank.routed(bank.arrow(1), Combine::kParams).forward(x);
  EXPECT_TRUE(y[3].isnan().all().item<bool>());
  EXPECT_FALSE(y.narrow(0, 0, 3).isnan().any().item<bool>());
}

TEST(RoutedUpdate, SaysWhatDoesNotFit) {
  const Bank bank(44, 30, 20, {4, 8});
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { bank.routed(bank.arrow(1), Combine::kParams); }),
              HasSubstr("adapter 0 has rank 4 and scaling 2, adapter 1 rank 8 and scaling 1"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { bank.routed(std::make_shared<UniformRouter>(3), Combine::kOutputs); }),
              HasSubstr("among 3 adapters and there are 2"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { RoutedUpdate(bank.base(), {}, bank.arrow(1), Combine::kParams); }),
              HasSubstr("without adapters"));
  const auto other = Bank(1, 30, 21, {4}).base();
  EXPECT_THAT(
      message_of(ErrorKind::kMismatch, [&] { RoutedUpdate(other, {bank.pairs[0]}, std::make_shared<UniformRouter>(1), Combine::kParams); }),
      HasSubstr("[21, 30]"));
}

/// What has no backward pass is no TrainableUpdate, and what training takes is nothing else.
TEST(RoutedUpdate, HasNoBackwardPass) {
  static_assert(!std::is_base_of_v<nn::TrainableUpdate, RoutedUpdate>);
  static_assert(!std::is_constructible_v<nn::TrainableUpdatePtr, std::shared_ptr<RoutedUpdate>>);
  const Bank bank(1, 30, 20, {4});
  EXPECT_ERROR(bank.routed(bank.arrow(1), Combine::kParams).with(nn::TrainedUpdate{}), ErrorKind::kInternal,
               "a trained update above 1 updates that have no backward pass");
  EXPECT_EQ(bank.routed(bank.arrow(1), Combine::kParams).forward(tokens_of(1, 3, 30)).size(0), 3);
}

TEST(RoutedUpdate, RefusesARouterThatChoosesAnAdapterThatIsNotThere) {
  struct Wild : Router {
    RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t>) const override {
      return {torch::full({x.size(0), 1}, 2, torch::kLong), torch::ones({x.size(0), 1})};
    }
    std::int64_t num_adapters() const override { return 2; }
  };
  const Bank bank(47, 30, 20, {4, 4});
  EXPECT_THAT(
      message_of(ErrorKind::kInternal, [&] { bank.routed(std::make_shared<Wild>(), Combine::kParams).forward(tokens_of(1, 2, 30)); }),
      HasSubstr("adapter 2 of 2"));
}

}  // namespace
}  // namespace quiver::routing
