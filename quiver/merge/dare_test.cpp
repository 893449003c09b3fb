#include "quiver/merge/dare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quiver/merge/mean.h"
#include "quiver/merge/sparsify.h"
#include "quiver/merge/test_support.h"
#include "quiver/merge/ties.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

TEST(KeepMask, IsOneAsOftenAsTheDensitySays) {
  const auto mask = keep_mask({100, 200}, 0.3, 1, "x");
  EXPECT_TRUE((mask * (mask - 1) == 0).all().item<bool>());
  EXPECT_NEAR(mask.mean().item<double>(), 0.3, 0.015);  // 4.6 standard deviations
  EXPECT_TRUE(torch::equal(mask, keep_mask({100, 200}, 0.3, 1, "x")));
  EXPECT_FALSE(torch::equal(mask, keep_mask({100, 200}, 0.3, 1, "y")));
  EXPECT_FALSE(torch::equal(mask, keep_mask({100, 200}, 0.3, 2, "x")));
  EXPECT_TRUE(keep_mask({50}, 1, 1, "x").all().item<bool>());
}

TEST(DropAndRescale, KeepsTheMaskedEntriesOverTheDensity) {
  const auto a = random_adapter("a");
  const auto masks = dare_masks(a, {.density = 0.25, .seed = 3});
  const auto sparse = drop_and_rescale(a, masks, 0.25);
  for (const auto& [path, pair] : a.pairs) {
    SCOPED_TRACE(path);
    EXPECT_TRUE(torch::equal(sparse.pairs.at(path).lora_a(), pair.lora_a() * masks.at(path).a.to(torch::kFloat) * 4)) << path;
    EXPECT_TRUE(torch::equal(sparse.pairs.at(path).lora_b(), pair.lora_b() * masks.at(path).b.to(torch::kFloat) * 4)) << path;
    EXPECT_EQ(sparse.pairs.at(path).alpha(), pair.alpha());
  }
}

TEST(DropAndRescale, RefusesMasksThatDoNotFit) {
  const auto a = random_adapter("a");
  auto masks = dare_masks(a, {});
  masks.at(kPath).b = torch::ones({2, 8});
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { drop_and_rescale(a, masks, 0.5); }),
              AllOf(HasSubstr("adapter 'a' at layers.1.self_attn.q_proj"), HasSubstr("[2, 8]"), HasSubstr("[8, 2]")));
  masks.erase(kPath);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { drop_and_rescale(a, masks, 0.5); }), HasSubstr("no masks for adapter 'a'"));
}

TEST(Dare, AtDensityOneIsTheMeanOfTheFactors) {
  const auto adapters = three_adapters();
  EXPECT_TRUE(same_pairs(dare(adapters, {.density = 1}), mean_of_factors(adapters)));
  EXPECT_TRUE(same_pairs(dare_ties(adapters, {.density = 1}), ties(adapters, {.density = 1})));
}

TEST(Dare, IsTheMeanOfWhatDroppingLeaves) {
  const auto adapters = three_adapters();
  const DareOptions options = {.density = 0.4, .seed = 7};
  std::vector<LoraAdapter> sparse;
  for (const auto& adapter : adapters) sparse.push_back(drop_and_rescale(adapter, dare_masks(adapter, options), 0.4));
  const auto merged = dare(adapters, options);
  const auto elected = dare_ties(adapters, options);
  EXPECT_EQ(merged.name, "dare");
  EXPECT_EQ(elected.name, "dare_ties");
  for (const auto& [path, pair] : merged.pairs) {
    const auto a = torch::stack({sparse[0].pairs.at(path).lora_a(), sparse[1].pairs.at(path).lora_a(), sparse[2].pairs.at(path).lora_a()});
    EXPECT_TRUE(torch::allclose(pair.lora_a(), a.mean(0), 1e-6, 1e-7)) << path;
    const auto agrees = a * a.sum(0) > 0;
    const auto expected = (a * agrees).sum(0) / agrees.sum(0).clamp_min(1);
    EXPECT_TRUE(torch::allclose(elected.pairs.at(path).lora_a(), expected, 1e-6, 1e-7)) << path;
  }
}

TEST(Dare, LeavesTheUpdateUnchangedOnAverage) {
  const auto a = random_adapter("a");
  const auto expected = update_of(a.pairs.at(kPath));
  auto mean = torch::zeros_like(expected);
  constexpr int kDraws = 2000;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    mean += update_of(dare(std::vector{a}, {.density = 0.5, .seed = seed}).pairs.at(kPath)) / kDraws;
  }
  // A term of the update is dropped or quadrupled: variance 3 times its square.
  EXPECT_LT(relative_difference(mean, expected), 0.12);
}

TEST(Dare, DrawsByNameAndNotByOrder) {
  auto adapters = three_adapters();
  const auto merged = dare(adapters);
  const auto elected = dare_ties(adapters);
  std::ranges::reverse(adapters);
  EXPECT_LT(update_difference(dare(adapters), merged), 1e-6);
  EXPECT_LT(update_difference(dare_ties(adapters), elected), 1e-6);
  EXPECT_GT(update_difference(dare(adapters, {.seed = 1}), merged), 0.1);
  adapters[0].name = "another";
  EXPECT_GT(update_difference(dare(adapters), merged), 0.1);
}

TEST(Dare, RefusesDensitiesThatAreNone) {
  const auto adapters = three_adapters();
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { dare(adapters, {.density = 0}); }), HasSubstr("density 0 is not a share"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { dare_ties(adapters, {.density = 1.1}); }), HasSubstr("density 1.1"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { dare({}, {}); }), HasSubstr("no adapters to mix"));
}

}  // namespace
}  // namespace quiver::merge
