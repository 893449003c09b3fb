#include "quiver/routing/checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>

#include "quiver/base/error.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/directions.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::draw;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
const std::string kPath = "layers.0.self_attn.q_proj";

adapters::LoraAdapter adapter_at(const std::string& name, const std::string& path, std::uint64_t seed) {
  adapters::LoraAdapter adapter;
  adapter.name = name;
  adapter.pairs.emplace(path, adapters::LoraPair(draw({2, 4}, seed), draw({6, 2}, seed + 1), 4));
  return adapter;
}

TEST(CheckAlike, NamesTheAdapterAndTheProjectionThatItLacks) {
  auto more = adapter_at("more", kPath, 2);
  more.pairs.emplace("layers.0.mlp.up_proj", more.pairs.at(kPath));
  const std::vector<adapters::LoraAdapter> wider = {adapter_at("one", kPath, 1), more};
  const auto telling = "adapter 'more' adapts 'layers.0.mlp.up_proj' and adapter 'one' does not";
  EXPECT_ERROR(check_alike(wider), ErrorKind::kMismatch, telling);
  EXPECT_ERROR(stacked_directions(wider, 0, 1), ErrorKind::kMismatch, telling);
  EXPECT_ERROR(prototypes(wider), ErrorKind::kMismatch, telling);
}

TEST(CheckAlike, NamesTheAdapterWhoseFactorsAreNotFinite) {
  auto broken = adapter_at("broken", kPath, 2);
  auto& pair = broken.pairs.at(kPath);
  pair = adapters::LoraPair(pair.lora_a(), pair.lora_b() / 0, 4);
  const std::vector<adapters::LoraAdapter> adapters = {adapter_at("one", kPath, 1), broken};
  const auto telling = "adapter 'broken' holds NaN or infinite values at 'layers.0.self_attn.q_proj': it cannot be used to route by";
  EXPECT_ERROR(check_alike(adapters), ErrorKind::kUsage, telling);
  EXPECT_ERROR(adapter_prototypes(broken), ErrorKind::kUsage, telling);
  EXPECT_ERROR(stacked_directions(adapters, 0, 1), ErrorKind::kUsage, telling);
}

TEST(FiniteVectors, NamesTheAdapterAndTheProjection) {
  const std::vector<std::string> names = {"one", "two", "three"};
  auto vectors = draw({3, 4}, 1);
  EXPECT_TRUE(finite_vectors(vectors, kPath, names).equal(vectors));
  vectors[1][2] = kInf;
  EXPECT_ERROR(finite_vectors(vectors, kPath, names), ErrorKind::kMismatch,
               "what adapter 'two' is routed by at 'layers.0.self_attn.q_proj' is not finite");
}

TEST(AttachRouted, RefusesStoredPrototypesThatAreNotFinite) {
  const std::vector<adapters::LoraAdapter> adapters = {adapter_at("one", kPath, 1), adapter_at("two", kPath, 3)};
  nn::LinearMap projections = {{kPath, nn::Linear(draw({6, 4}, 5))}};
  auto stored = prototypes(adapters);
  stored.at(kPath)[0][0] = kNan;
  EXPECT_ERROR(attach_routed(projections, adapters, {.top_k = 1}, Combine::kParams, nullptr, &stored), ErrorKind::kMismatch,
               "what adapter 'one' is routed by at 'layers.0.self_attn.q_proj' is not finite");
}

/// The router of two adapters by two prototypes, of which the second has huge scores.
CheckedRouter checked_router() {
  const auto prototypes = torch::stack({torch::ones({4}), torch::full({4}, 3e38F)});
  return {std::make_shared<ArrowRouter>(prototypes, ArrowOptions{.top_k = 1}), kPath, {"one", "two"}};
}

TEST(CheckedRouter, PassesSoundDecisionsOn) {
  const auto decision = checked_router().route(torch::full({2, 4}, 1e-3F));
  EXPECT_TRUE(decision.index.equal(torch::ones({2, 1}, torch::kLong)));
  EXPECT_TRUE(decision.weight.equal(torch::ones({2, 1})));
  EXPECT_EQ(checked_router().num_adapters(), 2);
  EXPECT_EQ(checked_router().route(torch::empty({0, 4})).index.size(0), 0);
}

TEST(CheckedRouter, NamesTheAdapterWhoseScoreOverflows) {
  EXPECT_ERROR(checked_router().route(torch::full({2, 4}, 1e3F)), ErrorKind::kMismatch,
               "the routing score of adapter 'two' at 'layers.0.self_attn.q_proj' is not finite");
}

TEST(CheckedRouter, AnInputThatIsNotFiniteMakesTheOutputSo) {
  auto x = torch::full({3, 4}, 1e-3F);
  x[1][0] = kNan;
  EXPECT_TRUE(checked_router().route(x).weight.isfinite().flatten().equal(torch::tensor({true, false, true})));
  const std::vector<adapters::LoraAdapter> adapters = {adapter_at("one", kPath, 1), adapter_at("two", kPath, 3)};
  nn::LinearMap projections = {{kPath, nn::Linear(draw({6, 4}, 5))}};
  attach_routed(projections, adapters, {.top_k = 2}, Combine::kParams);
  const auto is_finite = projections.at(kPath).forward(x).isfinite();
  EXPECT_TRUE(is_finite.all(1).equal(torch::tensor({true, false, true})));
  EXPECT_FALSE(is_finite[1].any().item<bool>());
}

}  // namespace
}  // namespace quiver::routing
