#include "quiver/methods/artifact_key.h"

#include <gtest/gtest.h>

#include <set>

namespace quiver::methods {
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

}  // namespace
}  // namespace quiver::methods
