#include "quiver/adapters/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/test_support.h"
#include "quiver/base/error.h"

namespace quiver::adapters {
namespace {

using ::testing::HasSubstr;

LoraPair hand_made() {
  return LoraPair(torch::tensor({{1.0F, 2.0F, 0.0F}, {0.0F, 1.0F, -1.0F}}), torch::tensor({{1.0F, 0.0F}, {3.0F, 2.0F}}),
                  /*alpha=*/8);
}

TEST(LoraPair, DeltaIsScalingTimesBA) {
  const auto expected = torch::tensor({{4.0F, 8.0F, 0.0F}, {12.0F, 32.0F, -8.0F}});  // 4 B A, by hand
  EXPECT_TRUE(torch::equal(hand_made().delta(), expected));
}

TEST(LoraPair, ScalesByAlphaOverRankOrItsRoot) {
  EXPECT_DOUBLE_EQ(hand_made().scaling(), 4.0);
  const LoraPair stable(torch::ones({4, 3}), torch::ones({5, 4}), /*alpha=*/8, /*use_rslora=*/true);
  EXPECT_DOUBLE_EQ(stable.scaling(), 4.0);
  EXPECT_TRUE(torch::equal(stable.delta(), torch::full({5, 3}, 16.0F)));
}

TEST(LoraPair, ApplyMatchesDeltaForAnyBatch) {
  torch::manual_seed(3);
  const LoraPair pair(torch::randn({3, 8}, torch::kDouble), torch::randn({5, 3}, torch::kDouble), /*alpha=*/7);
  const auto x = torch::randn({2, 4, 8}, torch::kDouble);
  EXPECT_TRUE(torch::allclose(pair.apply(x), torch::matmul(x, pair.delta().t()), 1e-12, 1e-12));
  EXPECT_EQ(pair.apply(x[0][0]).sizes(), torch::IntArrayRef({5}));
  EXPECT_EQ(pair.apply(torch::empty({0, 8}, torch::kDouble)).sizes(), torch::IntArrayRef({0, 5}));
}

TEST(LoraPair, ApplyComputesInItsOwnDtypeAndAnswersInThatOfX) {
  const auto y = hand_made().apply(torch::tensor({{1.0F, 1.0F, 1.0F}}).to(torch::kBFloat16));
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(torch::equal(y.to(torch::kFloat), torch::tensor({{12.0F, 36.0F}})));
}

TEST(LoraPair, GradientsReachBothFactors) {
  const auto a = torch::ones({1, 2}).requires_grad_();
  const auto b = torch::full({3, 1}, 2.0F).requires_grad_();
  LoraPair(a, b, 5).apply(torch::tensor({{1.0F, 3.0F}})).sum().backward();
  EXPECT_TRUE(torch::equal(a.grad(), torch::tensor({{30.0F, 90.0F}})));  // 5 * sum(B) * x
  EXPECT_TRUE(torch::equal(b.grad(), torch::full({3, 1}, 20.0F)));       // 5 * A x
}

TEST(LoraPair, RefusesWhatIsNoPair) {
  const auto f = torch::kFloat;
  const auto message = message_of(ErrorKind::kMismatch, [&] { LoraPair(torch::ones({32, 8}, f), torch::ones({8, 64}, f), 1); });
  EXPECT_THAT(message, HasSubstr("lora_a is Float [32, 8] and lora_b is Float [8, 64]"));
  EXPECT_ERROR(LoraPair(torch::ones({2, 8}), torch::ones({8, 2}, torch::kDouble), 1), ErrorKind::kMismatch,
               "lora_a is Float [2, 8] and lora_b is Double [8, 2]");
  EXPECT_ERROR(LoraPair(torch::ones({2, 8}, torch::kInt), torch::ones({8, 2}, torch::kInt), 1), ErrorKind::kMismatch,
               "lora_a is Int [2, 8]");
  EXPECT_ERROR(LoraPair(torch::ones({0, 8}), torch::ones({8, 0}), 1), ErrorKind::kMismatch, "lora_a is Float [0, 8]");
  EXPECT_ERROR(LoraPair(torch::ones({8}), torch::ones({8, 1}), 1), ErrorKind::kMismatch, "lora_a is Float [8] and");
  EXPECT_ERROR(LoraPair({}, torch::ones({8, 1}), 1), ErrorKind::kMismatch, "lora_a is none");
  EXPECT_ERROR(LoraPair(torch::ones({1, 8}), torch::ones({8, 1}), std::nan("")), ErrorKind::kMismatch, "alpha is nan, which is not finite");
}

TEST(LoraPair, RefusesAnInputOfAnotherWidth) {
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [] {
                           hand_made().apply(torch::ones({2, 4}));
                         }),
              HasSubstr("x Float [2, 4]: expected x [..., 3]"));
}

TEST(LoraOptions, AreChecked) {
  EXPECT_NO_THROW(check(LoraOptions{}));
  EXPECT_ERROR(check({.rank = 0}), ErrorKind::kUsage, "a LoRA of rank 0");
  EXPECT_ERROR(check({.dropout = 1.0}), ErrorKind::kUsage, "LoRA dropout is 1");
  EXPECT_ERROR(check({.dropout = std::nan("")}), ErrorKind::kUsage, "LoRA dropout is nan");
  EXPECT_ERROR(check({.alpha = INFINITY}), ErrorKind::kUsage, "LoRA alpha is inf");
  EXPECT_ERROR(check({.target_modules = {}}), ErrorKind::kUsage, "no target modules");
}

TEST(MergedWeight, ActsAsWeightAndUpdateTogether) {
  const auto pair = random_adapter("a").pairs.at(kPath);
  torch::manual_seed(1);
  const auto weight = torch::randn({8, 6});
  const auto x = torch::randn({5, 6});
  EXPECT_TRUE(torch::allclose(torch::linear(x, merged_weight(weight, pair)), torch::linear(x, weight) + pair.apply(x), 1e-5, 1e-5));
}

TEST(MergedWeight, RoundsOnceForHalfWeights) {
  const auto pair = random_adapter("a").pairs.at(kPath);
  const auto weight = torch::ones({8, 6}, torch::kBFloat16);
  EXPECT_TRUE(torch::equal(merged_weight(weight, pair), (pair.delta() + 1).to(torch::kBFloat16)));
}

TEST(MergedWeight, RefusesAnotherShape) {
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [] {
                           merged_weight(torch::ones({6, 8}), random_adapter("a").pairs.at(kPath));
                         }),
              HasSubstr("delta_w [8, 6] into a weight Float [6, 8]"));
}

}  // namespace
}  // namespace quiver::adapters
