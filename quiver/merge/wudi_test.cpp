#include "quiver/merge/wudi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "quiver/merge/mean.h"
#include "quiver/merge/test_support.h"
#include "quiver/testing/draw.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kLastRank = 2;  // ranks 2, 3 and 2 over 6 inputs: no update can leave all of them undisturbed

std::vector<LoraPair> pairs_at(const std::vector<LoraAdapter>& adapters, const std::string& path) {
  std::vector<LoraPair> pairs;
  for (const auto& adapter : adapters) pairs.push_back(adapter.pairs.at(path));
  return pairs;
}

torch::Tensor dense_gradient(const std::vector<LoraPair>& pairs, const torch::Tensor& tau) {
  auto sum = torch::zeros_like(tau);
  for (const auto& pair : pairs) {
    const auto task = update_of(pair);
    sum += 2 * (tau - task).matmul(task.t()).matmul(task) / task.square().sum();
  }
  return sum;
}

TEST(Wudi, HasNoGradientLeft) {
  const auto adapters = three_unequal_adapters(kLastRank);
  const auto merged = wudi(adapters);
  for (const auto& [path, pair] : merged.pairs) {
    const auto pairs = pairs_at(adapters, path);
    EXPECT_LT(dense_gradient(pairs, update_of(pair)).norm().item<double>(), 1e-11) << path;
    EXPECT_GT(wudi_objective(pairs, update_of(pair)), 0.01) << path;  // or it were no test
  }
}

TEST(Wudi, IsBelowTheSumTheMeanAndWhatGradientDescentReaches) {
  const auto adapters = three_unequal_adapters(kLastRank);
  const auto merged = wudi(adapters);
  const auto sum = task_arithmetic(adapters, 1), mean = mean_of_products(adapters);
  for (const auto& [path, pair] : merged.pairs) {
    const auto pairs = pairs_at(adapters, path);
    const double least = wudi_objective(pairs, update_of(pair));
    EXPECT_LT(least, wudi_objective(pairs, update_of(sum.pairs.at(path)))) << path;
    EXPECT_LT(least, wudi_objective(pairs, update_of(mean.pairs.at(path)))) << path;
    auto tau = update_of(sum.pairs.at(path));
    for (int step = 0; step < 3000; ++step) tau = tau - 0.05 * dense_gradient(pairs, tau);
    EXPECT_LE(least, wudi_objective(pairs, tau) * (1 + 1e-9)) << path;
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const auto moved = update_of(pair) + testing::draw(tau.sizes(), seed, 1e-3).to(torch::kDouble);
      EXPECT_LE(least, wudi_objective(pairs, moved)) << path;
    }
  }
}

TEST(Wudi, OfOneAdapterOrOfEqualOnesIsItsUpdate) {
  const auto a = in_double(random_adapter("a"));
  EXPECT_LT(update_difference(wudi(std::vector{a}), a), 1e-12);
  EXPECT_LT(update_difference(wudi(std::vector{a, a, a}), a), 1e-12);
}

TEST(Wudi, OfAdaptersThatReadOrthogonalInputsIsTheirSum) {
  auto adapters = std::vector{in_double(random_adapter("a")), in_double(random_adapter("b"))};
  const auto q = std::get<0>(torch::linalg_qr(testing::draw({6, 4}, 3).to(torch::kDouble))).t();  // [4, 6]
  for (std::size_t i = 0; i < 2; ++i) {
    for (auto& [path, pair] : adapters[i].pairs) {
      pair = LoraPair(q.narrow(0, 2 * static_cast<std::int64_t>(i), 2).clone(), pair.lora_b(), 4);
    }
  }
  EXPECT_LT(update_difference(wudi(adapters), task_arithmetic(adapters, 1)), 1e-12);
  EXPECT_LT(update_difference(wudi(adapters, {.divide_by_count = true}), mean_of_products(adapters)), 1e-12);
}

TEST(Wudi, DependsOnTheUpdatesAlone) {
  auto adapters = three_unequal_adapters(kLastRank);
  const auto merged = wudi(adapters);
  for (std::size_t i = 0; i < adapters.size(); ++i) adapters[i] = in_another_basis(adapters[i], i);
  EXPECT_LT(update_difference(wudi(adapters), merged), 1e-10);
  std::ranges::reverse(adapters);
  EXPECT_LT(update_difference(wudi(adapters), merged), 1e-10);
}

TEST(Wudi, ReadsOnlyWhatTheAdaptersRead) {
  const std::vector adapters = {in_double(random_adapter("a", 1, 4, 1)), in_double(random_adapter("b", 2, 4, 2))};
  const auto pair = wudi(adapters).pairs.at(kPath);
  EXPECT_EQ(pair.rank(), 3);
  EXPECT_DOUBLE_EQ(pair.scaling(), 1);
  const auto read = torch::cat({adapters[0].pairs.at(kPath).lora_a(), adapters[1].pairs.at(kPath).lora_a()}, 0);  // [3, 6]
  const auto unread = std::get<2>(torch::linalg_svd(read, true)).narrow(0, 3, 3);
  EXPECT_LT(update_of(pair).matmul(unread.t()).norm().item<double>(), 1e-12);
}

TEST(Wudi, LeavesOutUpdatesThatAreZero) {
  const auto adapters = three_unequal_adapters(kLastRank);
  auto zero = in_double(random_adapter("zero", 2, 4, 5));
  for (auto& [path, pair] : zero.pairs) pair = LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), 4);
  auto more = adapters;
  more.push_back(zero);
  EXPECT_LT(update_difference(wudi(more), wudi(adapters)), 1e-11);
  EXPECT_EQ(update_of(wudi(std::vector{zero}).pairs.at(kPath)).abs().max().item<double>(), 0);
}

TEST(Wudi, RefusesWhatItCannotMerge) {
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { wudi({}); }), HasSubstr("no adapters to mix"));
  auto broken = three_unequal_adapters(kLastRank);
  auto& pair = broken[2].pairs.at(kPath);
  pair = LoraPair(pair.lora_a() * std::nan(""), pair.lora_b(), 2);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { wudi(broken); }), HasSubstr("adapter 'c' holds NaN or infinite values"));
}

}  // namespace
}  // namespace quiver::merge
