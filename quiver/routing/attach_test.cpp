#include "quiver/routing/attach.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <functional>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/routing/baselines.h"
#include "quiver/testing/dense_mixture.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::seeded;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kQ = "layers.0.self_attn.q_proj";
const std::string kUp = "layers.0.mlp.up_proj";

adapters::LoraAdapter random_adapter(const std::string& name, std::uint64_t seed, std::int64_t rank = 2) {
  auto generator = seeded(seed);
  adapters::LoraAdapter adapter;
  adapter.name = name;
  adapter.pairs.emplace(kQ, adapters::LoraPair(torch::randn({rank, 12}, generator), torch::randn({12, rank}, generator), 4));
  adapter.pairs.emplace(kUp, adapters::LoraPair(torch::randn({rank, 12}, generator), torch::randn({30, rank}, generator), 4));
  return adapter;
}

nn::LinearMap random_model() {
  auto generator = seeded(99);
  nn::LinearMap model;
  model.emplace(kQ, nn::Linear(torch::randn({12, 12}, generator)));
  model.emplace(kUp, nn::Linear(torch::randn({30, 12}, generator)));
  model.emplace("lm_head", nn::Linear(torch::randn({50, 12}, generator)));
  return model;
}

using quiver::testing::message_of;

TEST(Prototypes, StackThoseOfEachAdapter) {
  const std::vector<adapters::LoraAdapter> adapters = {random_adapter("a", 1), random_adapter("b", 2), random_adapter("c", 3)};
  const auto stacked = prototypes(adapters);
  ASSERT_EQ(stacked.size(), 2);
  EXPECT_EQ(stacked.at(kQ).sizes(), (std::vector<std::int64_t>{3, 12}));
  EXPECT_TRUE(stacked.at(kUp)[1].equal(arrow_prototype(adapters[1].pairs.at(kUp))));
  EXPECT_TRUE(stacked.at(kQ)[2].equal(adapter_prototypes(adapters[2]).at(kQ)));
}

TEST(AttachRouted, ReplacesTheAdaptedProjectionsOnly) {
  const std::vector<adapters::LoraAdapter> adapters = {random_adapter("a", 1), random_adapter("b", 2), random_adapter("c", 3)};
  const auto before = random_model();
  auto model = before;
  attach_routed(model, adapters, {.top_k = 2}, Combine::kParams);
  EXPECT_FALSE(model.at("lm_head").has_updates());
  EXPECT_TRUE(model.at(kUp).has_updates() && model.at(kQ).has_updates());
  auto generator = seeded(5);
  const auto x = torch::randn({7, 12}, generator);
  const ArrowRouter router(prototypes(adapters).at(kUp), {.top_k = 2});
  const std::vector<adapters::LoraPair> pairs = {adapters[0].pairs.at(kUp), adapters[1].pairs.at(kUp), adapters[2].pairs.at(kUp)};
  const auto expected = quiver::testing::dense_mixture(before.at(kUp).weight().dense(), pairs, router.route(x), x, Combine::kParams);
  EXPECT_TRUE(torch::allclose(model.at(kUp).forward(x).to(torch::kDouble), expected, 1e-5, 1e-5));
}

TEST(AttachRouted, TakesStoredPrototypes) {
  const std::vector<adapters::LoraAdapter> adapters = {random_adapter("a", 1), random_adapter("b", 2)};
  PrototypeMap stored = {{kQ, torch::zeros({2, 12})}, {kUp, torch::zeros({2, 12})}};
  for (auto& [path, rows] : stored) rows[1].fill_(1);  // so that adapter 1 always wins
  RoutingRecorder recorder;
  auto model = random_model();
  attach_routed(model, adapters, {.top_k = 1}, Combine::kParams, &recorder, &stored);
  auto generator = seeded(6);
  model.at(kQ).forward(torch::randn({5, 12}, generator));
  EXPECT_THAT(recorder.usage().at("").at(kQ).weight, ElementsAre(0, 5));

  stored[kUp] = torch::zeros({3, 12});
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { attach_routed(model, adapters, {.top_k = 1}, Combine::kParams, nullptr, &stored); }),
              HasSubstr("Float [3, 12] and the adapters need [2, 12]"));
  stored.erase(kUp);
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { attach_routed(model, adapters, {.top_k = 1}, Combine::kParams, nullptr, &stored); }),
              HasSubstr(kUp));
}

TEST(AttachRouted, LeavesTheModelAloneWhenItThrows) {
  const std::vector<adapters::LoraAdapter> adapters = {random_adapter("a", 1), random_adapter("b", 2)};
  auto model = random_model();
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { attach_routed(model, adapters, {.top_k = 3}, Combine::kParams); }),
              HasSubstr("top-k 3 is larger than the library of 2 adapters"));
  for (const auto& [path, linear] : model) EXPECT_FALSE(linear.has_updates()) << path;
}

TEST(AttachRouted, NamesTheAdaptersThatDoNotFitTogether) {
  auto model = random_model();
  auto narrow = random_adapter("narrow", 2);
  narrow.pairs.erase(kUp);
  std::vector<adapters::LoraAdapter> adapters = {random_adapter("wide", 1), narrow};
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { attach_routed(model, adapters, {.top_k = 1}, Combine::kParams); }),
              HasSubstr("adapter 'wide' adapts 'layers.0.mlp.up_proj' and adapter 'narrow' does not"));
  std::swap(adapters[0], adapters[1]);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { prototypes(adapters); }),
              HasSubstr("adapter 'wide' adapts 'layers.0.mlp.up_proj' and adapter 'narrow' does not"));
  adapters = {random_adapter("low", 1), random_adapter("high", 2, 4)};
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { attach_routed(model, adapters, {.top_k = 1}, Combine::kParams); }),
              HasSubstr("adapter 'low' has rank 2 and scaling 2, adapter 'high' rank 4 and scaling 1"));
  attach_routed(model, adapters, {.top_k = 1}, Combine::kOutputs);
  nn::LinearMap smaller = random_model();
  smaller.erase(kUp);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { attach_routed(smaller, adapters, {.top_k = 1}, Combine::kOutputs); }),
              HasSubstr("'layers.0.mlp.up_proj', which the model does not have"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { attach_routed(model, {}, {.top_k = 1}, Combine::kOutputs); }), HasSubstr("no adapters"));
}

TEST(RoutingRecorder, AddsUpByTagAndPath) {
  RoutingRecorder recorder;
  const RoutingDecision decision{torch::tensor({{0, 2}, {2, 1}}, torch::kLong), torch::tensor({{0.75F, 0.25F}, {1.0F, 0.0F}})};
  recorder.set_tag("qnli");
  recorder.record("p", 4, decision);
  recorder.record("p", 4, decision);
  recorder.set_tag("rte");
  recorder.record("p", 4, decision);
  const auto usage = recorder.usage();
  const auto& qnli = usage.at("qnli").at("p");
  EXPECT_THAT(qnli.weight, ElementsAre(1.5, 0, 2.5, 0));
  EXPECT_THAT(qnli.choices, ElementsAre(2, 2, 4, 0));
  EXPECT_EQ(qnli.num_tokens, 4);
  EXPECT_NEAR(qnli.entropy, 2 * -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)), 1e-9);
  EXPECT_EQ(usage.at("rte").at("p").num_tokens, 2);
  recorder.clear();
  EXPECT_TRUE(recorder.usage().empty());
}

TEST(RoutingRecorder, CountsEveryTokenOfSeveralThreads) {
  RoutingRecorder recorder;
  const RecordingRouter router(std::make_shared<UniformRouter>(2), "p", &recorder);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) router.route(torch::zeros({3, 2}));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(recorder.usage().at("").at("p").num_tokens, 600);
  EXPECT_THAT(recorder.usage().at("").at("p").weight, ElementsAre(300, 300));
}

TEST(FixedRouter, ChoosesItsAdapterAlone) {
  const auto fixed = FixedRouter(4, 3).route(torch::zeros({2, 8}));
  EXPECT_TRUE(fixed.index.equal(torch::full({2, 1}, 3, torch::kLong)));
  EXPECT_TRUE(fixed.weight.equal(torch::ones({2, 1})));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { FixedRouter(4, 4); }), HasSubstr("adapter 4"));
}

}  // namespace
}  // namespace quiver::routing
