#include "quiver/model/sampler.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

TEST(Sampler, SamplesFromTheNucleusOnly) {
  const auto logits = torch::log(torch::tensor({0.5, 0.3, 0.15, 0.05}));
  Sampler sampler({.temperature = 1, .top_p = 0.75, .seed = 1, .stream = "nucleus"});
  std::vector<int> seen(4, 0);
  for (int i = 0; i < 4000; ++i) ++seen.at(sampler.choose(logits));
  EXPECT_NEAR(seen[0] / 4000.0, 0.5 / 0.8, 0.03);
  EXPECT_NEAR(seen[1] / 4000.0, 0.3 / 0.8, 0.03);
  EXPECT_EQ(seen[2] + seen[3], 0);
}

TEST(Sampler, SamplesFromAllWhereNothingIsCut) {
  const auto logits = torch::log(torch::tensor({0.5, 0.3, 0.15, 0.05}));
  Sampler sampler({.temperature = 1, .seed = 2, .stream = "all"});
  std::vector<int> seen(4, 0);
  for (int i = 0; i < 4000; ++i) ++seen.at(static_cast<std::size_t>(sampler.choose(logits)));
  EXPECT_NEAR(seen[0] / 4000.0, 0.5, 0.03);
  EXPECT_NEAR(seen[3] / 4000.0, 0.05, 0.015);
}

TEST(Sampler, IsGreedyWithoutATemperature) {
  Sampler sampler({});
  EXPECT_EQ(sampler.choose(torch::tensor({0.5, 2.0, 1.0, 2.0})), 1);
}

TEST(Sampler, ItsNumbersFollowFromSeedAndStream) {
  const auto logits = torch::zeros({1000});
  const auto draw = [&](std::uint64_t seed, const char* stream) {
    Sampler sampler({.temperature = 1, .seed = seed, .stream = stream});
    return std::vector{sampler.choose(logits), sampler.choose(logits), sampler.choose(logits)};
  };
  EXPECT_EQ(draw(1, "generate/0"), draw(1, "generate/0"));
  EXPECT_NE(draw(1, "generate/0"), draw(2, "generate/0"));
  EXPECT_NE(draw(1, "generate/0"), draw(1, "generate/1"));
}

}  // namespace
}  // namespace quiver::model
