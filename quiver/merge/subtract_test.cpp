#include "quiver/merge/subtract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <vector>

#include "quiver/merge/compress.h"
#include "quiver/merge/test_support.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

TEST(SubtractFactors, TakesTheMeanOfEachFactorAway) {
  const auto task = random_adapter("task", 2, 4, 1);
  const std::vector general = {random_adapter("english", 2, 4, 2), random_adapter("german", 2, 4, 3)};
  const auto rest = subtract_factors(task, general);
  EXPECT_EQ(rest.name, "task");
  for (const auto& [path, pair] : task.pairs) {
    SCOPED_TRACE(path);
    const auto &english = general[0].pairs.at(path), &german = general[1].pairs.at(path);
    const auto a = pair.lora_a() - (english.lora_a() + german.lora_a()) / 2;
    const auto b = pair.lora_b() - (english.lora_b() + german.lora_b()) / 2;
    EXPECT_TRUE(torch::allclose(rest.pairs.at(path).lora_a(), a, 1e-6, 1e-7)) << path;
    EXPECT_TRUE(torch::allclose(rest.pairs.at(path).lora_b(), b, 1e-6, 1e-7)) << path;
    EXPECT_DOUBLE_EQ(rest.pairs.at(path).scaling(), 2);
  }
}

TEST(SubtractProducts, TakesTheMeanOfTheUpdatesAway) {
  const auto task = random_adapter("task", 2, 4, 1);
  const std::vector general = {random_adapter("english", 3, 5, 2), random_adapter("german", 1, 2, 3)};
  const auto rest = subtract_products(task, general);
  EXPECT_EQ(rest.name, "task");
  EXPECT_EQ(rest.options.rank, 6);
  for (const auto& [path, pair] : task.pairs) {
    SCOPED_TRACE(path);
    const auto expected = update_of(pair) - (update_of(general[0].pairs.at(path)) + update_of(general[1].pairs.at(path))) / 2;
    EXPECT_LT(relative_difference(update_of(rest.pairs.at(path)), expected), 1e-6) << path;
    EXPECT_EQ(rest.pairs.at(path).rank(), 6);
    EXPECT_DOUBLE_EQ(rest.pairs.at(path).scaling(), 1);
  }
  EXPECT_LT(update_difference(compressed(rest, 6), rest), 1e-6);
}

TEST(Subtract, LeavesNothingOfAnAdapterLessItself) {
  const auto a = random_adapter("a");
  const auto by_factors = subtract_factors(a, std::vector{a, a}), by_products = subtract_products(a, std::vector{a, a});
  EXPECT_LT(update_of(by_factors.pairs.at(kPath)).abs().max().item<double>(), 1e-7);
  EXPECT_LT(update_of(by_products.pairs.at(kPath)).abs().max().item<double>(), 1e-7);
}

TEST(Subtract, RefusesWhatDoesNotFit) {
  const auto a = random_adapter("a");
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { subtract_factors(a, {}); }),
              HasSubstr("no general adapters to subtract from adapter 'a'"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { subtract_products(a, {}); }), HasSubstr("give at least one"));
  const std::vector wider = {random_adapter("wider", 3, 6)};
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { subtract_factors(a, wider); }),
              AllOf(HasSubstr("'a' and 'wider'"), HasSubstr("ranks are 2 and 3")));
}

}  // namespace
}  // namespace quiver::merge
