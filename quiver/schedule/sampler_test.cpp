#include "quiver/schedule/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::schedule {
namespace {

using Logits = std::vector<float>;

Logits logs_of(const std::vector<double>& probabilities) {
  Logits logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

/// How often each token is drawn.
std::vector<double> shares(const SamplerOptions& options, const Logits& logits, int draws = 4000) {
  Sampler sampler(options);
  std::vector<double> seen(logits.size(), 0);
  for (int i = 0; i < draws; ++i) seen.at(static_cast<std::size_t>(sampler.choose(logits))) += 1.0 / draws;
  return seen;
}

TEST(Sampler, SamplesFromTheNucleusOnly) {
  const auto seen = shares({.temperature = 1, .top_p = 0.75, .seed = 1, .stream = "nucleus"}, logs_of({0.5, 0.3, 0.15, 0.05}));
  EXPECT_NEAR(seen[0], 0.5 / 0.8, 0.03);
  EXPECT_NEAR(seen[1], 0.3 / 0.8, 0.03);
  EXPECT_EQ(seen[2] + seen[3], 0);
}

TEST(Sampler, SamplesFromAllWhereNothingIsCut) {
  const auto seen = shares({.temperature = 1, .seed = 2, .stream = "all"}, logs_of({0.5, 0.3, 0.15, 0.05}));
  EXPECT_NEAR(seen[0], 0.5, 0.03);
  EXPECT_NEAR(seen[3], 0.05, 0.015);
}

TEST(Sampler, CutsToTheTopKFirst) {
  const auto logits = logs_of({0.1, 0.4, 0.2, 0.3});
  const auto seen = shares({.temperature = 1, .top_k = 2, .stream = "k"}, logits);
  EXPECT_NEAR(seen[1], 4.0 / 7, 0.03);
  EXPECT_NEAR(seen[3], 3.0 / 7, 0.03);
  EXPECT_EQ(seen[0] + seen[2], 0);
  // The nucleus is one of those that are left: 0.4 of 0.7 is more than half.
  EXPECT_NEAR(shares({.temperature = 1, .top_p = 0.5, .top_k = 2, .stream = "k"}, logits)[1], 1, 1e-9);
}

TEST(Sampler, LeavesOutWhatIsUnlikelyBesideTheLikeliest) {
  const auto seen = shares({.temperature = 1, .min_p = 0.45, .stream = "m"}, logs_of({0.1, 0.4, 0.2, 0.3}));
  EXPECT_EQ(seen[0], 0);
  EXPECT_NEAR(seen[2], 2.0 / 9, 0.03);
}

TEST(Sampler, TheTemperatureDividesLogits) {
  const auto seen = shares({.temperature = 2, .stream = "t"}, logs_of({0.64, 0.36}));
  EXPECT_NEAR(seen[0], 0.8 / 1.4, 0.03);
}

/// The kept tokens of a large vocabulary are found by sorting a part of it; a plain sort of all is the definition.
TEST(Sampler, SortsNoMoreThanItMustAndCutsAlike) {
  RandomStream random(5, "large");
  Logits logits(3000);
  for (auto& z : logits) z = static_cast<float>(random.uniform(0, 6));
  for (const double top_p : {0.05, 0.3, 0.9, 0.999}) {
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](auto a, auto b) { return logits[a] > logits[b]; });
    double sum = 0, total = 0;
    for (const auto z : logits) sum += std::exp(z);
    std::size_t kept = 0;
    while (kept == 0 || total < top_p * sum) total += std::exp(logits[order[kept++]]);
    const auto seen = shares({.temperature = 1, .top_p = top_p, .stream = "large"}, logits, 4000);
    double outside = 0;
    for (auto i = kept; i < order.size(); ++i) outside += seen[order[i]];
    EXPECT_EQ(outside, 0) << top_p;
    EXPECT_GT(seen[order[kept - 1]] + seen[order[kept - 2]] + seen[order[kept / 2]], 0) << top_p;
  }
}

TEST(Sampler, IsGreedyWithoutATemperature) {
  Sampler sampler({});
  EXPECT_EQ(sampler.choose(Logits{0.5, 2.0, 1.0, 2.0}), 1);
  EXPECT_TRUE(sampler.is_plain_greedy());
  EXPECT_EQ(sampler.choose(Logits{0.5, 2.0, 1.0, 2.0}, std::vector<std::int32_t>{1, 3}), 2);
}

TEST(Sampler, PenalisesWhatHasOccurred) {
  const std::vector<std::int32_t> prompt = {0, 3};
  Sampler repetition({.repetition_penalty = 2}, prompt);
  EXPECT_FALSE(repetition.is_plain_greedy());
  EXPECT_EQ(repetition.choose(Logits{4, 2.5, 1, -1}), 1);  // 4 / 2 < 2.5
  repetition.count(1);
  EXPECT_EQ(repetition.choose(Logits{4, 2.5, 1, -1}), 0);     // 2 > 2.5 / 2
  EXPECT_EQ(repetition.choose(Logits{-9, -9, -1.5, -1}), 2);  // -1 * 2 < -1.5
  Sampler frequency({.frequency_penalty = 0.5, .presence_penalty = 0.25}, prompt);
  EXPECT_EQ(frequency.choose(Logits{4, 3.6f, 1, 1}), 0);  // the prompt does not count
  frequency.count(0);
  EXPECT_EQ(frequency.choose(Logits{4, 3.3f, 1, 1}), 1);  // 4 - 0.75 < 3.3
  EXPECT_EQ(frequency.choose(Logits{4, 3.2f, 1, 1}), 0);
  frequency.count(0);
  EXPECT_EQ(frequency.choose(Logits{4, 2.8f, 1, 1}), 1);  // 4 - 1.25 < 2.8
}

TEST(Sampler, AddsABiasToLogits) {
  Sampler sampler({.logit_bias = {{2, 3.0f}, {0, -100.0f}}});
  EXPECT_EQ(sampler.choose(Logits{4, 3, 1, 2}), 2);
}

TEST(Sampler, ItsNumbersFollowFromSeedAndStream) {
  const Logits logits(1000, 0.0f);
  const auto draw = [&](std::uint64_t seed, const char* stream) {
    Sampler sampler({.temperature = 1, .seed = seed, .stream = stream});
    return std::vector{sampler.choose(logits), sampler.choose(logits), sampler.choose(logits)};
  };
  EXPECT_EQ(draw(1, "generate/0"), draw(1, "generate/0"));
  EXPECT_NE(draw(1, "generate/0"), draw(2, "generate/0"));
  EXPECT_NE(draw(1, "generate/0"), draw(1, "generate/1"));
}

TEST(Sampler, RefusesWhatIsOutOfRange) {
  EXPECT_ERROR(Sampler({.temperature = -1}), ErrorKind::kUsage, "temperature is -1; expected 0 or more");
  EXPECT_ERROR(Sampler({.top_p = 0}), ErrorKind::kUsage, "`top_p` is 0; expected above 0 and at most 1");
  EXPECT_ERROR(Sampler({.top_k = -1}), ErrorKind::kUsage, "top_k is -1; expected 0 (all) or more");
  EXPECT_ERROR(Sampler({.min_p = 1.5}), ErrorKind::kUsage, "min_p is 1.5; expected 0 to 1");
  EXPECT_ERROR(Sampler({.repetition_penalty = 0}), ErrorKind::kUsage, "repetition_penalty is 0; expected above 0");
  EXPECT_ERROR(Sampler({.logit_bias = {{-1, 1.0f}}}), ErrorKind::kUsage, "logit_bias of token -1");
}

}  // namespace
}  // namespace quiver::schedule
