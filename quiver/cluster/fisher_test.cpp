#include "quiver/cluster/fisher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::cluster {
namespace {

using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::HasSubstr;

tensor::TensorMap diagonal(std::uint64_t seed) {
  return {{"layers.0.q_proj.lora_a", draw({2, 6}, seed).square()}, {"layers.0.q_proj.lora_b", draw({5, 2}, seed + 1).square()}};
}

TEST(FisherSimilarity, IsTheMeanOverPathsOfTheCosineOfTheShares) {
  const auto a = diagonal(1);
  auto b = diagonal(3);
  b.at("layers.0.q_proj.lora_b")[0][0] = 0;
  double expected = 0;
  for (const auto& [path, value] : a) {
    double product = 0, square_a = 0, square_b = 0;
    const auto x = value.reshape(-1), y = b.at(path).reshape(-1);
    for (std::int64_t i = 0; i < x.size(0); ++i) {
      const double fa = x[i].item<double>(), fb = y[i].item<double>();
      product += fa * fb / ((fa + fb) * (fa + fb));
      square_a += fa * fa / ((fa + fb) * (fa + fb));
      square_b += fb * fb / ((fa + fb) * (fa + fb));
    }
    expected += product / std::sqrt(square_a * square_b) / 2;
  }
  EXPECT_GT(expected, 0.1);
  EXPECT_LT(expected, 0.9);
  EXPECT_NEAR(fisher_similarity(a, b), expected, 1e-12);
  EXPECT_NEAR(fisher_similarity(b, a), expected, 1e-12);
  EXPECT_NEAR(fisher_similarity(a, a), 1, 1e-12);
}

TEST(FisherSimilarity, CountsEveryParameterAlike) {
  const auto a = torch::tensor({1e-6F, 3e-6F, 5.0F}), b = torch::tensor({3e-6F, 1e-6F, 5.0F});
  const double expected = (0.25 * 0.75 * 2 + 0.25) / (0.25 * 0.25 + 0.75 * 0.75 + 0.25);
  EXPECT_NEAR(fisher_similarity({{"p", a}}, {{"p", b}}), expected, 1e-6);
  // Entries that are 0 in both say nothing, nor does a path that is 0 in one.
  const auto longer = torch::cat({a, torch::zeros({4})}), other = torch::cat({b, torch::zeros({4})});
  EXPECT_NEAR(fisher_similarity({{"p", longer}, {"q", torch::zeros({2})}}, {{"p", other}, {"q", torch::ones({2})}}), expected, 1e-6);
}

TEST(FisherSimilarity, OfDiagonalsThatShareNoParameterIsZero) {
  const tensor::TensorMap a = {{"p", torch::tensor({1.0F, 0.0F})}}, b = {{"p", torch::tensor({0.0F, 2.0F})}};
  EXPECT_EQ(fisher_similarity(a, b), 0);
}

TEST(FisherSimilarity, SaysWhatDoesNotFit) {
  const auto a = diagonal(1);
  auto b = diagonal(3);
  b["layers.0.q_proj.lora_a"] = draw({3, 6}, 5).square();
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { fisher_similarity(a, b); }),
              HasSubstr("differ at 'layers.0.q_proj.lora_a': Float [2, 6] and Float [3, 6]"));
  b.erase("layers.0.q_proj.lora_a");
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { fisher_similarity(a, b); }),
              HasSubstr("the first Fisher diagonal has 'layers.0.q_proj.lora_a' and the second has not"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { fisher_similarity(b, a); }),
              HasSubstr("the second Fisher diagonal has 'layers.0.q_proj.lora_a' and the first has not"));
  const auto one = [](float value) { return tensor::TensorMap{{"p", torch::tensor({1.0F, value})}}; };
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { fisher_similarity(one(1), one(-1)); }), HasSubstr("'p' hold entries that are negative"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { fisher_similarity(one(std::numeric_limits<float>::quiet_NaN()), one(1)); }),
              HasSubstr("not finite"));
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           fisher_similarity(one(1), {{"p", torch::zeros({2})}});
                         }),
              HasSubstr("no path where both have entries above 0"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [] { fisher_similarity({}, {}); }), HasSubstr("no path"));
}

}  // namespace
}  // namespace quiver::cluster
