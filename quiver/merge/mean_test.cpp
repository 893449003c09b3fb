#include "quiver/merge/mean.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/merge/test_support.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

torch::Tensor as_double(const torch::Tensor& tensor) { return tensor.to(torch::kDouble); }

TEST(MeanOfFactors, AveragesEachFactorOnItsOwn) {
  const auto adapters = three_adapters();
  const auto mean = mean_of_factors(adapters);
  auto expected_a = torch::zeros({2, 6}, torch::kDouble);
  auto expected_b = torch::zeros({8, 2}, torch::kDouble);
  for (const auto& adapter : adapters) {
    expected_a += as_double(adapter.pairs.at(kPath).lora_a()) / 3;
    expected_b += as_double(adapter.pairs.at(kPath).lora_b()) / 3;
  }
  const auto& pair = mean.pairs.at(kPath);
  EXPECT_TRUE(torch::allclose(as_double(pair.lora_a()), expected_a, 1e-6, 1e-7));
  EXPECT_TRUE(torch::allclose(as_double(pair.lora_b()), expected_b, 1e-6, 1e-7));
  EXPECT_DOUBLE_EQ(pair.scaling(), 2.0);
  EXPECT_EQ(mean.pairs.size(), 4u);
  EXPECT_EQ(mean.base_model, "llama-tiny");
}

TEST(MeanOfFactors, OfOneAdapterThriceIsThatAdapter) {
  const auto a = random_adapter("a");
  EXPECT_TRUE(same_pairs(mean_of_factors(std::vector{a, a, a}), a));
}

TEST(MeanOfFactors, IsTheMeanOfProductsWhenLoraAIsShared) {
  const std::vector adapters = {random_adapter("a", 2, 4, 1), random_adapter("b", 2, 4, 1)};
  EXPECT_TRUE(
      torch::allclose(mean_of_factors(adapters).pairs.at(kPath).delta(), mean_of_products(adapters).pairs.at(kPath).delta(), 1e-5, 1e-6));
}

TEST(WeightedFactors, WithOneHotWeightsGiveThatAdapter) {
  const auto adapters = three_adapters();
  EXPECT_TRUE(same_pairs(weighted_factors(adapters, std::vector{0.0, 1.0, 0.0}), adapters[1]));
}

TEST(WeightedFactors, KeepTheDtypeOfTheAdapters) {
  auto a = random_adapter("a");
  for (auto& [path, pair] : a.pairs) pair = pair.to(torch::kCPU, torch::kBFloat16);
  const auto mean = mean_of_factors(std::vector{a, a});
  EXPECT_EQ(mean.pairs.at(kPath).lora_a().scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(same_pairs(mean, a));
  EXPECT_EQ(mean_of_factors(std::vector{a, random_adapter("b")}).pairs.at(kPath).lora_a().scalar_type(), torch::kFloat);
}

TEST(MeanOfProducts, IsTheMeanOfTheUpdatesWhateverTheRanks) {
  const std::vector adapters = {random_adapter("a", 2, 4, 1), random_adapter("b", 3, 5, 2)};
  const auto mean = mean_of_products(adapters);
  const auto& pair = mean.pairs.at(kPath);
  const auto expected = (adapters[0].pairs.at(kPath).delta() + adapters[1].pairs.at(kPath).delta()) / 2;
  EXPECT_TRUE(torch::allclose(pair.delta(), expected, 1e-5, 1e-6));
  EXPECT_EQ(pair.rank(), 5);
  EXPECT_DOUBLE_EQ(pair.scaling(), 1.0);
  EXPECT_EQ(mean.options.rank, 5);
  EXPECT_DOUBLE_EQ(mean.options.alpha, 5.0);
}

TEST(WeightedProducts, LeaveOutAdaptersOfWeightZero) {
  const auto adapters = three_adapters();
  const auto mixed = weighted_products(adapters, std::vector{0.0, -2.0, 0.0});
  EXPECT_EQ(mixed.pairs.at(kPath).rank(), 2);
  EXPECT_TRUE(torch::allclose(mixed.pairs.at(kPath).delta(), -2 * adapters[1].pairs.at(kPath).delta(), 1e-5, 1e-6));
  EXPECT_EQ(weighted_products(adapters, std::vector{0.0, 0.0, 0.0}).pairs.at(kPath).delta().abs().max().item<float>(), 0);
}

TEST(TaskArithmetic, IsLambdaTimesTheSumOfTheUpdates) {
  const std::vector adapters = {random_adapter("a", 2, 4, 1), random_adapter("b", 3, 5, 2)};
  const auto merged = task_arithmetic(adapters, -0.7);
  const auto expected = -0.7 * (update_of(adapters[0].pairs.at(kPath)) + update_of(adapters[1].pairs.at(kPath)));
  EXPECT_LT(relative_difference(update_of(merged.pairs.at(kPath)), expected), 1e-6);
  EXPECT_EQ(merged.pairs.at(kPath).rank(), 5);
  EXPECT_EQ(merged.name, "task_arithmetic");
  EXPECT_TRUE(same_pairs(task_arithmetic(adapters), task_arithmetic(adapters, 0.4)));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { task_arithmetic(adapters, std::nan("")); }), HasSubstr("lambda is nan"));
}

TEST(Mixtures, RefuseFactorsThatAreNotFinite) {
  auto broken = random_adapter("broken");
  auto& pair = broken.pairs.at(kPath);
  pair = LoraPair(pair.lora_a(), pair.lora_b() / 0, 4);
  const std::vector mixed = {random_adapter("a"), broken};
  const auto telling = std::string("adapter 'broken' holds NaN or infinite values at '") + kPath + "'";
  EXPECT_ERROR(mean_of_factors(mixed), ErrorKind::kUsage, telling);
  EXPECT_ERROR(mean_of_products(mixed), ErrorKind::kUsage, telling);
}

TEST(Mixtures, NameTheAdaptersThatDiffer) {
  const auto kMismatch = ErrorKind::kMismatch;
  const auto a = random_adapter("a");
  EXPECT_THAT(message_of(kMismatch,
                         [&] {
                           mean_of_factors(std::vector{a, random_adapter("b", 3, 6)});
                         }),
              AllOf(HasSubstr("'a' and 'b'"), HasSubstr("ranks are 2 and 3")));
  EXPECT_THAT(message_of(kMismatch,
                         [&] {
                           mean_of_factors(std::vector{a, random_adapter("b", 2, 1)});
                         }),
              HasSubstr("scalings are 2 and 0.5"));
  auto shorter = random_adapter("short");
  shorter.pairs.erase(kPath);
  EXPECT_THAT(message_of(kMismatch,
                         [&] {
                           mean_of_factors(std::vector{a, shorter});
                         }),
              HasSubstr("'short' has no LoRA on layers.1.self_attn.q_proj"));
  EXPECT_THAT(message_of(kMismatch,
                         [&] {
                           mean_of_products(std::vector{shorter, a});
                         }),
              HasSubstr("'short' has no LoRA on layers.1.self_attn.q_proj"));
  auto wide = random_adapter("wide");
  wide.pairs.at(kPath) = LoraPair(torch::ones({2, 7}), torch::ones({8, 2}), 4);
  EXPECT_THAT(message_of(kMismatch,
                         [&] {
                           mean_of_products(std::vector{a, wide});
                         }),
              HasSubstr("one maps 6 to 8 features, the other 7 to 8"));
}

TEST(Mixtures, RefuseAdaptersOfDifferentBases) {
  auto a = random_adapter("a"), b = random_adapter("b"), c = random_adapter("c");
  a.base_fingerprint = "f1";
  c.base_fingerprint = "f1";
  EXPECT_EQ(mean_of_factors(std::vector{b, a, c}).base_fingerprint, "f1");
  c.base_fingerprint = "f2";
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           mean_of_factors(std::vector{a, b, c});
                         }),
              HasSubstr("'a' and 'c': they were trained on different bases"));
}

TEST(Mixtures, RefuseWeightsThatDoNotFit) {
  const auto adapters = three_adapters();
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { weighted_factors(adapters, std::vector{1.0}); }), HasSubstr("1 weights for 3 adapters"));
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           weighted_products(adapters, std::vector{1.0, std::nan(""), 0.0});
                         }),
              HasSubstr("the weight of adapter 'b' is nan"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { mean_of_factors({}); }), HasSubstr("no adapters to mix"));
}

TEST(Mixable, RefusesADora) {
  auto dora = random_adapter("one");
  auto& pair = dora.pairs.at(kPath);
  pair = LoraPair(pair.lora_a(), pair.lora_b(), pair.alpha(), false, torch::ones({8}));
  EXPECT_ERROR(mean_of_factors(std::vector{dora}), ErrorKind::kUnsupported, "adapter 'one' is a DoRA (at layers.1.self_attn.q_proj)");
}

}  // namespace
}  // namespace quiver::merge
