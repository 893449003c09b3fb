// Against PEFT and NumPy (tests/golden/merges/README.md).
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <map>
#include <string>
#include <vector>

#include "quiver/merge/compress.h"
#include "quiver/merge/knots.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/peft_merge.h"
#include "quiver/merge/subtract.h"
#include "quiver/merge/test_support.h"
#include "quiver/merge/ties.h"
#include "quiver/merge/wudi.h"
#include "quiver/tensor/tensor.h"

namespace quiver::merge {
namespace {

const std::string kGolden = "tests/golden/merges/";
const std::vector<std::string> kPaths = {"layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj"};
const std::vector<double> kWeights = {0.7, 0.5, -0.4, 0.9};
constexpr double kDensity = 0.4;

LoraAdapter golden_adapter(const std::string& name) {
  static const auto tensors = tensor::load_tensors(kGolden + "adapters.safetensors");
  LoraAdapter adapter;
  adapter.name = name;
  for (const auto& path : kPaths) {
    const auto key = name + "." + path;
    adapter.pairs.emplace(path, LoraPair(tensors.at(key + ".lora_a"), tensors.at(key + ".lora_b"), name == "d" ? 4 : 6));
  }
  return adapter;
}

/// a, b and c, of rank 3 and scaling 2.
std::vector<LoraAdapter> first_three() { return {golden_adapter("a"), golden_adapter("b"), golden_adapter("c")}; }

/// And d, of rank 5 and scaling 0.8.
std::vector<LoraAdapter> four_adapters() {
  auto adapters = first_three();
  adapters.push_back(golden_adapter("d"));
  return adapters;
}

std::span<const double> first_weights(std::size_t count) { return std::span(kWeights).first(count); }

class PeftMerges : public ::testing::Test {
 protected:
  torch::Tensor at(const std::string& key) const { return tensors_.at(key); }

  void expect_factors(const LoraAdapter& merged, const std::string& name) const {
    for (const auto& path : kPaths) {
      const auto& pair = merged.pairs.at(path);
      EXPECT_LT(relative_difference(pair.lora_a(), at(name + "." + path + ".lora_a")), 3e-7) << name << " " << path;
      EXPECT_LT(relative_difference(pair.lora_b(), at(name + "." + path + ".lora_b")), 3e-7) << name << " " << path;
    }
  }

  void expect_updates(const LoraAdapter& merged, const std::string& name) const {
    for (const auto& path : kPaths) {
      const auto key = name + "." + path;
      const auto expected = at(key + ".lora_b").to(torch::kDouble).matmul(at(key + ".lora_a").to(torch::kDouble));
      EXPECT_LT(relative_difference(update_of(merged.pairs.at(path)), expected), 2e-6) << name << " " << path;
    }
  }

  std::vector<AdapterMasks> masks_of(const std::string& name) const {
    std::vector<AdapterMasks> masks;
    for (const std::string adapter : {"a", "b", "c"}) {
      AdapterMasks of_adapter;
      for (const auto& path : kPaths) {
        const auto key = name + "." + adapter + "." + path + ".mask_";
        of_adapter[path] = {at(key + "a"), at(key + "b")};
      }
      masks.push_back(of_adapter);
    }
    return masks;
  }

 private:
  tensor::TensorMap tensors_ = tensor::load_tensors(kGolden + "peft.safetensors");
};

TEST_F(PeftMerges, LinearIsPefts) {
  const auto adapters = first_three();
  expect_factors(peft_merge(adapters, first_weights(3)), "linear");
}

TEST_F(PeftMerges, OneAdapterIsOnlyWeighted) {
  const std::vector one = {golden_adapter("b")};
  expect_factors(peft_merge(one, std::vector{-0.5}, {.combination = PeftCombination::kTies, .density = kDensity}), "linear-one");
}

TEST_F(PeftMerges, CatAndSvdAreUpdatesOfOurs) {
  const auto adapters = four_adapters();
  expect_updates(weighted_products(adapters, kWeights), "cat");
  expect_updates(compressed_products(adapters, kWeights, 2), "svd-2");
  expect_updates(compressed_products(adapters, kWeights, 5), "svd-5");
  EXPECT_EQ(weighted_products(adapters, kWeights).pairs.at(kPaths[0]).rank(), at("cat." + kPaths[0] + ".lora_a").size(0));
}

TEST_F(PeftMerges, MagnitudePruneIsPefts) {
  const auto adapters = first_three();
  expect_factors(peft_merge(adapters, first_weights(3), {.combination = PeftCombination::kMagnitudePrune, .density = kDensity}),
                 "magnitude_prune");
}

TEST_F(PeftMerges, TiesIsPeftsForBothElections) {
  const auto adapters = first_three();
  PeftMergeOptions options = {.combination = PeftCombination::kTies, .density = kDensity};
  expect_factors(peft_merge(adapters, first_weights(3), options), "ties-total");
  options.majority_sign = MajoritySign::kFrequency;
  expect_factors(peft_merge(adapters, first_weights(3), options), "ties-frequency");
  EXPECT_FALSE(torch::equal(at("ties-total." + kPaths[0] + ".lora_a"), at("ties-frequency." + kPaths[0] + ".lora_a")));
}

TEST_F(PeftMerges, DareIsPeftsWithItsMasks) {
  const auto adapters = first_three();
  PeftMergeOptions options = {.combination = PeftCombination::kDareLinear, .density = kDensity};
  expect_factors(peft_merge(adapters, first_weights(3), options, masks_of("dare_linear")), "dare_linear");
  options.combination = PeftCombination::kDareTies;
  expect_factors(peft_merge(adapters, first_weights(3), options, masks_of("dare_ties-total")), "dare_ties-total");
  options.majority_sign = MajoritySign::kFrequency;
  expect_factors(peft_merge(adapters, first_weights(3), options, masks_of("dare_ties-frequency")), "dare_ties-frequency");
}

TEST_F(PeftMerges, DareDrawsItsOwnMasksElse) {
  const auto adapters = first_three();
  const PeftMergeOptions options = {.combination = PeftCombination::kDareTies, .density = kDensity, .seed = 3};
  std::vector<AdapterMasks> masks;
  for (const auto& adapter : adapters) masks.push_back(dare_masks(adapter, {.density = kDensity, .seed = 3}));
  EXPECT_TRUE(same_pairs(peft_merge(adapters, first_weights(3), options), peft_merge(adapters, first_weights(3), options, masks)));
  masks.pop_back();
  const auto message = message_of(ErrorKind::kMismatch, [&] { peft_merge(adapters, first_weights(3), options, masks); });
  EXPECT_NE(message.find("masks for 2 adapters, of 3"), std::string::npos) << message;
}

TEST_F(PeftMerges, SubtractedFactorsArePeftsGeneralKnowledgeSubtraction) {
  const std::vector general = {golden_adapter("b"), golden_adapter("c")};
  expect_factors(subtract_factors(golden_adapter("a"), general), "gks");
}

torch::Tensor by_numpy(const std::string& key) {
  static const auto tensors = tensor::load_tensors(kGolden + "numpy.safetensors");
  return tensors.at(key);
}

class NumPyMerges : public ::testing::TestWithParam<double> {};

std::string case_name(const std::string& method, double density) {
  return method + "-" + (density == 1 ? "1.0" : density == 0.2 ? "0.2" : "0.5") + ".";
}

TEST_P(NumPyMerges, TiesOfTheFactorsMatches) {
  const auto merged = ties(first_three(), {.density = GetParam()});
  for (const auto& path : kPaths) {
    const auto key = case_name("mttl-ties", GetParam()) + path;
    EXPECT_LT(relative_difference(merged.pairs.at(path).lora_a(), by_numpy(key + ".lora_a")), 1e-7) << path;
    EXPECT_LT(relative_difference(merged.pairs.at(path).lora_b(), by_numpy(key + ".lora_b")), 1e-7) << path;
  }
}

TEST_P(NumPyMerges, KnotsMatches) {
  auto adapters = four_adapters();
  for (auto& adapter : adapters) adapter = in_double(adapter);
  const auto merged = knots(adapters, {.density = GetParam()});
  for (const auto& path : kPaths) {
    const auto expected = by_numpy(case_name("knots-ties", GetParam()) + path + ".delta");
    EXPECT_LT(relative_difference(update_of(merged.pairs.at(path)), expected), 1e-11) << path;
  }
}

INSTANTIATE_TEST_SUITE_P(Densities, NumPyMerges, ::testing::Values(0.2, 0.5, 1.0),
                         [](const auto& test) { return std::to_string(static_cast<int>(test.param * 10)) + "tenths"; });

TEST(NumPyWudi, IsTheLimitOfGradientDescentAndBelowAdam) {
  auto adapters = four_adapters();
  for (auto& adapter : adapters) adapter = in_double(adapter);
  const auto merged = wudi(adapters);
  for (const auto& path : kPaths) {
    std::vector<LoraPair> pairs;
    for (const auto& adapter : adapters) pairs.push_back(adapter.pairs.at(path));
    const auto& pair = merged.pairs.at(path);
    EXPECT_LT(relative_difference(update_of(pair), by_numpy("wudi." + path + ".delta")), 1e-10) << path;
    // Of the sum, three runs of Adam, and descent to a standstill.
    const auto objectives = by_numpy("wudi." + path + ".objectives");
    const double least = wudi_objective(pairs, update_of(pair));
    for (int i = 0; i < 4; ++i) EXPECT_LT(least, objectives[i].item<double>()) << path;
    EXPECT_NEAR(least, objectives[4].item<double>(), 1e-12) << path;
  }
}

}  // namespace
}  // namespace quiver::merge
