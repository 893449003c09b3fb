#include "quiver/merge/skills.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/test_support.h"

namespace quiver::merge {
namespace {

class PeftPoly : public ::testing::TestWithParam<std::int64_t> {};

/// Outputs and gradients of a Linear under PEFT's Poly, whose scaling is 1 / r and whose epsilon is 1e-12, not 1e-8.
TEST_P(PeftPoly, GivesItsOutputsAndGradients) {
  const auto golden = tensor::load_tensors("tests/golden/poly/poly.safetensors");
  const auto heads = GetParam();
  const auto at = [&](const std::string& name) { return golden.at(format("heads{}.{}", heads, name)); };
  // [S, K, d_in / S, r] -> [K, r, d_in];  [S, K, r, d_out / S] -> [K, d_out, r]
  const auto to_a = [](const torch::Tensor& t) { return t.permute({1, 3, 0, 2}).flatten(2).contiguous(); };
  const auto to_b = [](const torch::Tensor& t) { return t.permute({1, 0, 3, 2}).flatten(1, 2).contiguous(); };
  const auto a = to_a(at("a")).requires_grad_(), b = to_b(at("b")).requires_grad_();
  const auto logits = at("logits").view({4, heads, 3}).clone().requires_grad_();
  const auto weights = mix_weights(logits.index_select(0, torch::tensor({2, 0, 2})), MixRule::kSigmoid);
  const auto mixed_a = mix_lora_a(a, weights), mixed_b = mix_lora_b(b, weights);
  const auto z = at("x").bmm(mixed_a.transpose(1, 2));
  const auto y = at("x").matmul(at("weight").t()) + z.bmm(mixed_b.transpose(1, 2)) / static_cast<double>(a.size(1));
  EXPECT_LT((y - at("y")).abs().max().item<double>(), 1e-7);
  (y * at("dy")).sum().backward();
  EXPECT_LT((a.grad() - to_a(at("da"))).abs().max().item<double>(), 1e-7);
  EXPECT_LT((b.grad() - to_b(at("db"))).abs().max().item<double>(), 1e-7);
  EXPECT_LT((logits.grad().flatten(1) - at("dlogits")).abs().max().item<double>(), 1e-7);
}

INSTANTIATE_TEST_SUITE_P(Heads, PeftPoly, ::testing::Values(1, 2));

std::vector<LoraAdapter> three_skills() { return {random_adapter("a"), random_adapter("b"), random_adapter("c")}; }

TEST(MixSkills, EqualLogitsAreTheMeanOfFactors) {
  const auto skills = three_skills();
  for (const auto rule : {MixRule::kSigmoid, MixRule::kSoftmax}) {
    for (const std::int64_t heads : {1, 2}) {
      const auto mixed = mix_skills(skills, torch::zeros({4, heads, 3}), {.rule = rule, .num_heads = heads}, "mixed");
      EXPECT_LT(update_difference(mixed, mean_of_factors(skills)), 1e-6) << mix_rule_name(rule) << heads;
    }
  }
}

TEST(MixSkills, OneHotWeightsAreThatSkill) {
  const auto skills = three_skills();
  auto logits = torch::zeros({1, 1, 3});
  logits[0][0][1] = 1;
  const auto mixed = mix_skills(skills, logits, {.rule = MixRule::kLinear, .unit = MixUnit::kModel}, "mixed");
  EXPECT_TRUE(same_pairs(mixed, skills[1]));
}

TEST(MixSkills, EachUnitHasWeightsOfItsOwn) {
  const auto skills = three_skills();
  auto logits = torch::zeros({2, 1, 3});
  logits[0][0][0] = 1;
  logits[1][0][2] = 1;
  const auto mixed = mix_skills(skills, logits, {.rule = MixRule::kLinear, .unit = MixUnit::kLayer}, "mixed");
  for (const auto& [path, pair] : mixed.pairs) {
    const auto& expected = skills[path.starts_with("layers.0.") ? 0 : 2].pairs.at(path);
    EXPECT_TRUE(pair.lora_a().equal(expected.lora_a()) && pair.lora_b().equal(expected.lora_b())) << path;
  }
}

/// Blocks of A are columns, blocks of B are rows.
TEST(MixSkills, HeadsMixBlocksOfTheirOwn) {
  const auto skills = three_skills();
  auto logits = torch::zeros({1, 2, 3});
  logits[0][0][0] = 1;
  logits[0][1][1] = 1;
  const auto mixed = mix_skills(skills, logits, {.rule = MixRule::kLinear, .unit = MixUnit::kModel, .num_heads = 2}, "mixed");
  for (const auto& [path, pair] : mixed.pairs) {
    SCOPED_TRACE(path);
    const auto &first = skills[0].pairs.at(path), &second = skills[1].pairs.at(path);
    const auto half_in = pair.in_features() / 2, half_out = pair.out_features() / 2;
    EXPECT_TRUE(pair.lora_a().equal(torch::cat({first.lora_a().narrow(1, 0, half_in), second.lora_a().narrow(1, half_in, half_in)}, 1)));
    EXPECT_TRUE(pair.lora_b().equal(torch::cat({first.lora_b().narrow(0, 0, half_out), second.lora_b().narrow(0, half_out, half_out)}, 0)));
  }
}

TEST(MixSkills, CountsUnits) {
  const auto adapter = random_adapter("a");
  EXPECT_EQ(mix_units(adapter, MixUnit::kProjection).count, 4);
  EXPECT_EQ(mix_units(adapter, MixUnit::kBlock).count, 2);
  EXPECT_EQ(mix_units(adapter, MixUnit::kLayer).count, 2);
  EXPECT_EQ(mix_units(adapter, MixUnit::kModel).count, 1);
}

TEST(MixSkills, RefusesWhatDoesNotFit) {
  const auto skills = three_skills();
  EXPECT_EQ(message_of(ErrorKind::kUsage,
                       [&] {
                         mix_skills(skills, torch::zeros({4, 5, 3}), {.num_heads = 5}, "mixed");
                       }),
            "5 heads do not divide the 6 inputs and 8 outputs of 'layers.0.self_attn.q_proj'");
  EXPECT_EQ(message_of(ErrorKind::kMismatch,
                       [&] {
                         mix_skills(skills, torch::zeros({4, 1, 2}), {}, "mixed");
                       }),
            "logits Float [4, 1, 2] do not fit 4 units, 1 heads and 3 skills");
  const std::vector<LoraAdapter> ranks = {random_adapter("a", 2), random_adapter("b", 3)};
  EXPECT_ERROR(mix_skills(ranks, torch::zeros({4, 1, 2}), {}, "mixed"), ErrorKind::kMismatch,
               "cannot mix the factors of adapters 'a' and 'b'");
}

}  // namespace
}  // namespace quiver::merge
