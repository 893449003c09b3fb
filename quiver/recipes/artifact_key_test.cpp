#include "quiver/recipes/artifact_key.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "quiver/recipes/adapted_model.h"

namespace quiver::recipes {
namespace {

adapters::LoraAdapter adapter_of(double value, double alpha) {
  adapters::LoraAdapter adapter;
  adapter.pairs.emplace("layers.0.self_attn.q_proj", adapters::LoraPair(torch::full({2, 3}, value), torch::ones({4, 2}), alpha));
  return adapter;
}

TEST(ArtifactKey, ChangesWithEveryInput) {
  const Prompt prompt = {1, 2, 3}, first = {1, 2}, second = {3};
  const std::string keys[] = {
      ArtifactKey("a").hex(),
      ArtifactKey("b").hex(),
      ArtifactKey("a").add("").hex(),
      ArtifactKey("a").add("b").hex(),
      ArtifactKey("a").add("b").add("").hex(),
      ArtifactKey("a").add_value(1).hex(),
      ArtifactKey("a").add_value(1.5).hex(),
      ArtifactKey("a").add_value("1").hex(),
      ArtifactKey("a").add_value({1, 2}).hex(),
      ArtifactKey("a").add(std::vector<Prompt>{prompt}).hex(),
      ArtifactKey("a").add(std::vector<Prompt>{first, second}).hex(),
      ArtifactKey("a").add(torch::ones({2, 3})).hex(),
      ArtifactKey("a").add(torch::ones({3, 2})).hex(),
      ArtifactKey("a").add(torch::ones({2, 3}, torch::kInt)).hex(),
      ArtifactKey("a").add(torch::zeros({2, 3})).hex(),
      ArtifactKey("a").add(adapter_of(1, 2)).hex(),
      ArtifactKey("a").add(adapter_of(1, 3)).hex(),
      ArtifactKey("a").add(adapter_of(1 + 1e-6, 2)).hex(),
  };
  EXPECT_EQ(std::set<std::string>(std::begin(keys), std::end(keys)).size(), std::size(keys));
}

TEST(ArtifactKey, CountsAdaptersByContent) {
  auto renamed = adapter_of(1, 2);
  renamed.name = "other";
  EXPECT_EQ(ArtifactKey("a").add(renamed).hex(), ArtifactKey("a").add(adapter_of(1, 2)).hex());
  EXPECT_EQ(ArtifactKey("a").add(torch::ones({2, 3}).t()).hex(), ArtifactKey("a").add(torch::ones({3, 2})).hex());
}

TEST(AdapterChoiceKey, ChangesWithEveryOption) {
  const std::vector<std::function<void(AdapterChoice&)>> changes = {
      [](auto& c) { c.method = "arrow"; },
      [](auto& c) { c.names = {"a"}; },
      [](auto& c) { c.kind = "poly"; },
      [](auto& c) { c.top_k = 1; },
      [](auto& c) { c.temperature = 2; },
      [](auto& c) { c.tie = {"q_proj"}; },
      [](auto& c) { c.tie_by = "sum"; },
      [](auto& c) { c.combine = "outputs"; },
      [](auto& c) { c.merge.weights = {1}; },
      [](auto& c) { c.merge.lambda = -1; },
      [](auto& c) { c.merge.density = -1; },
      [](auto& c) { c.merge.rank = -1; },
      [](auto& c) { c.merge.seed = 1; },
      [](auto& c) { c.merge.majority_sign = merge::MajoritySign::kFrequency; },
      [](auto& c) { c.general = {"a"}; },
      [](auto& c) { c.general_by_factors = true; },
      [](auto& c) { c.components = 1; },
      [](auto& c) { c.gamma = 1; },
      [](auto& c) { c.is_calibrated = true; },
      [](auto& c) { c.centroid_score = "dot"; },
      [](auto& c) { c.shortlist = 1; },
      [](auto& c) { c.fallback = "margin"; },
      [](auto& c) { c.fallback_strength = 2; },
      [](auto& c) { c.task_threshold = 1; },
      [](auto& c) { c.pooled_weight = 1; },
      [](auto& c) { c.calibration.num_prompts = 1; },
      [](auto& c) { c.calibration.max_tokens = 1; },
      [](auto& c) { c.calibration.seed = 1; },
      [](auto& c) { c.gate_steps = 1; },
      [](auto& c) { c.task_samples = 1; },
      [](auto& c) { c.calibration.file = "tests/golden/model/llama-tied/config.json"; },
      [](auto& c) { c.adapter = "tests/golden/peft/all-linears"; }};
  const auto key_of = [](const AdapterChoice& choice) {
    ArtifactKey key("choice");
    add_to_key(key, choice);
    return key.hex();
  };
  std::set<std::string> keys = {key_of({})};
  for (const auto& change : changes) {
    AdapterChoice choice;
    change(choice);
    keys.insert(key_of(choice));
  }
  EXPECT_EQ(keys.size(), changes.size() + 1);
}

}  // namespace
}  // namespace quiver::recipes
