#include "quiver/merge/knots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "quiver/merge/mean.h"
#include "quiver/merge/sparsify.h"
#include "quiver/merge/test_support.h"
#include "quiver/tensor/quantile.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

/// KnOTS on dense updates: {path: delta_w*}.
std::map<std::string, torch::Tensor> dense_knots(const std::vector<LoraAdapter>& adapters, KnotsMerge merge, double density) {
  std::map<std::string, torch::Tensor> bases;
  std::map<std::string, std::vector<torch::Tensor>> parts;  // S V_i^T
  for (const auto& [path, first] : adapters[0].pairs) {
    std::vector<torch::Tensor> updates;
    for (const auto& adapter : adapters) updates.push_back(adapter.pairs.at(path).delta());
    const auto [u, s, vh] = torch::linalg_svd(torch::cat(updates, 1), false);
    const auto kept = s > s[0] * 1e-10;
    const auto largest = u.gather(0, u.abs().argmax(0, true)).sign();
    bases[path] = (u * largest).index({torch::indexing::Slice(), kept});
    parts[path] = (s.unsqueeze(1) * vh * largest.t()).index({kept}).chunk(static_cast<std::int64_t>(adapters.size()), 1);
  }
  std::map<std::string, torch::Tensor> result;
  for (auto& [path, part] : parts) {
    auto stacked = torch::stack(part);
    if (merge == KnotsMerge::kDare) {
      for (std::size_t i = 0; i < adapters.size(); ++i) {
        stacked[i].mul_(keep_mask(part[i].sizes(), density, 5, "knots/" + adapters[i].name + "/" + path) / density);
      }
    }
    if (merge == KnotsMerge::kTies) {
      for (std::size_t i = 0; i < adapters.size(); ++i) {
        std::vector<torch::Tensor> all;
        for (const auto& [other, others] : parts) all.push_back(others[i].flatten());
        stacked[i].mul_(stacked[i].abs() >= tensor::magnitude_quantile(torch::cat(all), 1 - density));
      }
      const auto agrees = stacked * stacked.sum(0) > 0;
      result[path] = bases.at(path).matmul((stacked * agrees).sum(0) / agrees.sum(0).clamp_min(1));
    } else {
      result[path] = bases.at(path).matmul(stacked.mean(0));
    }
  }
  return result;
}

TEST(Knots, EqualsItsDefinitionOnDenseUpdates) {
  const auto adapters = three_unequal_adapters(1);
  for (const auto merge : {KnotsMerge::kTies, KnotsMerge::kDare, KnotsMerge::kMean}) {
    for (const double density : {0.2, 0.7}) {
      const auto merged = knots(adapters, {.merge = merge, .density = density, .seed = 5});
      for (const auto& [path, update] : dense_knots(adapters, merge, density)) {
        EXPECT_LT(relative_difference(merged.pairs.at(path).delta(), update), 1e-12) << path << " density " << density;
      }
    }
  }
}

TEST(Knots, HasDefaultDensities) {
  const auto adapters = three_unequal_adapters(1);
  EXPECT_EQ(update_difference(knots(adapters), knots(adapters, {.density = 0.2})), 0);
  EXPECT_EQ(update_difference(knots(adapters, {.merge = KnotsMerge::kDare}), knots(adapters, {.merge = KnotsMerge::kDare, .density = 0.5})),
            0);
}

TEST(Knots, MeanIsTheMeanOfProducts) {
  const auto adapters = three_unequal_adapters(1);
  EXPECT_LT(update_difference(knots(adapters, {.merge = KnotsMerge::kMean}), mean_of_products(adapters)), 1e-12);
}

TEST(Knots, OfOneAdapterOrOfEqualOnesAtDensityOneIsItsUpdate) {
  const auto a = in_double(random_adapter("a"));
  EXPECT_LT(update_difference(knots(std::vector{a}, {.density = 1}), a), 1e-12);
  const auto thrice = knots(std::vector{a, a, a}, {.density = 1});
  EXPECT_LT(update_difference(thrice, a), 1e-12);
  EXPECT_EQ(thrice.pairs.at(kPath).rank(), 2);  // not 6: the updates share their columns
  EXPECT_EQ(thrice.options.rank, 2);
}

TEST(Knots, DependsOnTheUpdatesAlone) {
  auto adapters = three_unequal_adapters(1);
  const auto merged = knots(adapters);
  for (std::size_t i = 0; i < adapters.size(); ++i) adapters[i] = in_another_basis(adapters[i], i);
  EXPECT_LT(update_difference(knots(adapters), merged), 1e-11);
  std::ranges::reverse(adapters);
  EXPECT_LT(update_difference(knots(adapters), merged), 1e-11);
}

TEST(Knots, HasARankOfAtMostTheSumAndScalingOne) {
  const auto merged = knots(std::vector{random_adapter("a", 2, 4, 1), random_adapter("b", 3, 5, 2)});
  const auto& pair = merged.pairs.at(kPath);
  EXPECT_EQ(pair.rank(), 5);
  EXPECT_DOUBLE_EQ(pair.scaling(), 1);
  EXPECT_EQ(pair.lora_a().scalar_type(), torch::kFloat);
  const auto b = pair.lora_b().to(torch::kDouble);
  EXPECT_TRUE(torch::allclose(b.t().matmul(b), torch::eye(5, torch::kDouble), 0, 1e-6));
  EXPECT_EQ(merged.pairs.at("layers.1.self_attn.v_proj").rank(), 4);  // d_out
  EXPECT_EQ(merged.name, "knots");
}

TEST(Knots, TakesUpdatesThatAreZero) {
  auto zero = random_adapter("zero");
  for (auto& [path, pair] : zero.pairs) pair = LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), 4);
  EXPECT_EQ(update_of(knots(std::vector{zero, zero}).pairs.at(kPath)).abs().max().item<double>(), 0);
  const auto a = random_adapter("a");
  EXPECT_LT(update_difference(knots(std::vector{a, zero}, {.density = 1}), a), 1e-6);
}

TEST(Knots, RefusesWhatItCannotMerge) {
  const auto adapters = three_unequal_adapters(1);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { knots(adapters, {.density = 0}); }), HasSubstr("density 0"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { knots({}); }), HasSubstr("no adapters to mix"));
  auto shorter = three_unequal_adapters(1);
  shorter[1].pairs.erase(kPath);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { knots(shorter); }), HasSubstr("'b' has no LoRA on layers.1.self_attn.q_proj"));
}

}  // namespace
}  // namespace quiver::merge
