#include "quiver/adapters/init.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/test_support.h"

namespace quiver::adapters {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

nn::LinearMap small_model() {
  nn::LinearMap projections;
  for (const std::string path : {"layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj", "layers.1.self_attn.q_proj"}) {
    projections[path] = nn::Linear(torch::zeros({8, 300}));
  }
  projections["layers.0.mlp.down_proj"] = nn::Linear(torch::zeros({300, 20}));
  return projections;
}

std::vector<std::string> paths_of(const LoraAdapter& adapter) {
  std::vector<std::string> paths;
  for (const auto& [path, pair] : adapter.pairs) paths.push_back(path);
  return paths;
}

TEST(InitialAdapter, ChangesNothingYet) {
  const auto adapter = initial_adapter("t", {.target_modules = {"q_proj"}}, small_model(), 5);
  const auto& pair = adapter.pairs.at("layers.1.self_attn.q_proj");
  EXPECT_EQ(tensor::describe(pair.lora_a()), "Float [4, 300]");
  EXPECT_EQ(tensor::describe(pair.lora_b()), "Float [8, 4]");
  EXPECT_EQ(pair.delta().abs().max().item<float>(), 0);
  EXPECT_DOUBLE_EQ(pair.scaling(), 4.0);
  EXPECT_EQ(adapter.name, "t");
}

TEST(InitialAdapter, FillsTheBoundOfItsKind) {
  const LoraOptions options{.target_modules = {"q_proj"}};
  const auto largest = [&](LoraInit init) {
    return initial_adapter("t", options, small_model(), 5, init).pairs.at("layers.0.self_attn.q_proj").lora_a().abs().max().item<float>();
  };
  EXPECT_NEAR(largest(LoraInit::kMttl), std::sqrt(1.0 / 3.0) / std::sqrt(300.0), 1e-4);
  EXPECT_NEAR(largest(LoraInit::kPeft), 1.0 / std::sqrt(300.0), 2e-4);
}

TEST(InitialAdapter, StartsFromOneLoraAWhateverItsName) {
  const auto options = LoraOptions{.target_modules = {"all-linear"}};
  const auto a = initial_adapter("a", options, small_model(), 5);
  EXPECT_TRUE(same_pairs(a, initial_adapter("b", options, small_model(), 5)));
  EXPECT_FALSE(same_pairs(a, initial_adapter("a", options, small_model(), 6)));
  const auto fewer = initial_adapter("a", {.target_modules = {"q_proj"}}, small_model(), 5);
  EXPECT_TRUE(torch::equal(a.pairs.at("layers.1.self_attn.q_proj").lora_a(), fewer.pairs.at("layers.1.self_attn.q_proj").lora_a()));
  EXPECT_FALSE(torch::equal(a.pairs.at("layers.0.self_attn.q_proj").lora_a(), a.pairs.at("layers.1.self_attn.q_proj").lora_a()));
}

TEST(InitialAdapter, AdaptsWhatTheTargetsSelect) {
  const auto selected = [](std::vector<std::string> targets) {
    return paths_of(initial_adapter("t", {.target_modules = std::move(targets)}, small_model(), 5));
  };
  EXPECT_THAT(selected({"k_proj", "down_proj"}), ElementsAre("layers.0.mlp.down_proj", "layers.0.self_attn.k_proj"));
  EXPECT_THAT(selected({"1.self_attn.q_proj"}), ElementsAre("layers.1.self_attn.q_proj"));
  EXPECT_EQ(selected({"all-linear"}).size(), 4u);
}

TEST(InitialAdapter, NamesTheKnownModulesForAnUnknownOne) {
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [] { initial_adapter("t", {.target_modules = {"q_porj"}}, small_model(), 5); }),
              HasSubstr("'q_porj' selects no projection of the model; it has down_proj, k_proj, q_proj (did you mean 'q_proj'?)"));
  EXPECT_ERROR(initial_adapter("t", {.target_modules = {"proj"}}, small_model(), 5), ErrorKind::kNotFound,
               "target module 'proj' selects no projection");
  EXPECT_ERROR(initial_adapter("t", {.rank = 0}, small_model(), 5), ErrorKind::kUsage, "a LoRA of rank 0");
}

}  // namespace
}  // namespace quiver::adapters
