#include "quiver/routing/score_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/routing/directions.h"
#include "quiver/routing/group_router.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::HasSubstr;

adapters::LoraPair pair_of(std::uint64_t seed, std::int64_t rank, std::int64_t d_in = 20, std::int64_t d_out = 12) {
  return {draw({rank, d_in}, seed), draw({d_out, rank}, seed + 1000), 8};
}

TEST(RightSingular, EqualsTheSvdOfTheProduct) {
  for (const std::int64_t rank : {1, 3, 4, 12, 16, 24}) {
    SCOPED_TRACE(rank);
    const auto pair = pair_of(static_cast<std::uint64_t>(rank), rank);
    const auto [values, vectors] = right_singular(pair);
    const auto product = pair.delta().to(torch::kDouble);
    const auto expected = std::get<1>(torch::linalg_svd(product, /*full_matrices=*/false));
    const auto count = std::min<std::int64_t>(rank, 12);
    EXPECT_TRUE(torch::allclose(values.narrow(0, 0, count), expected.narrow(0, 0, count), 1e-5, 1e-6)) << rank;
    EXPECT_LT(values.narrow(0, count, values.size(0) - count).abs().sum().item<double>(), 1e-9);
    EXPECT_TRUE(torch::allclose(vectors.matmul(vectors.t()), torch::eye(vectors.size(0), torch::kDouble), 1e-9, 1e-9));
    // |dW v_i| = sigma_i
    EXPECT_TRUE(torch::allclose(product.matmul(vectors.t()).norm(2, {0}).narrow(0, 0, count), values.narrow(0, 0, count), 1e-5, 1e-6));
  }
}

TEST(Directions, WithAllComponentsAndTheirValuesTheScoreIsTheNormOfTheUpdate) {
  const auto pair = pair_of(3, 4);
  const auto x = draw({9, 20}, 5);
  const auto vectors = directions(pair, 0, 1).unsqueeze(0);  // [1, r, d_in]
  EXPECT_TRUE(torch::allclose(adapter_scores(x, vectors, {}).squeeze(1), pair.apply(x).norm(2, {1}), 1e-4, 1e-4));
}

TEST(Directions, OfFewerRanksThanAskedForAreZero) {
  const auto rows = directions(pair_of(3, 2), 5, 0);
  EXPECT_EQ(rows.size(0), 5);
  EXPECT_NEAR(rows.narrow(0, 0, 2).norm(2, {1}).sum().item<double>(), 2, 1e-5);
}

/// Every score by a loop over tokens, adapters and components, in float64.
torch::Tensor scores_by_definition(const torch::Tensor& x, const torch::Tensor& vectors, const ScoreRule& rule) {
  auto scores = torch::zeros({x.size(0), vectors.size(0)}, torch::kDouble);
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    auto token = x[t].to(torch::kDouble);
    if (rule.input == InputNorm::kUnit) token = token / token.norm();
    if (rule.input == InputNorm::kLayerNorm) token = (token - token.mean()) / (token.var(/*unbiased=*/false) + 1e-5).sqrt();
    for (std::int64_t n = 0; n < vectors.size(0); ++n) {
      double squares = 0, plain = 0;
      for (std::int64_t c = 0; c < vectors.size(1); ++c) {
        plain = token.dot(vectors[n][c].to(torch::kDouble)).item<double>();
        squares += plain * plain;
      }
      scores[t][n] = rule.is_signed ? plain : std::sqrt(squares);
    }
  }
  return scores;
}

TEST(AdapterScores, EqualTheirDefinition) {
  const auto x = draw({6, 20}, 1);
  for (const auto input : {InputNorm::kNone, InputNorm::kUnit, InputNorm::kLayerNorm}) {
    SCOPED_TRACE(static_cast<int>(input));
    for (const std::int64_t components : {1, 3}) {
      SCOPED_TRACE(components);
      const auto vectors = draw({5, components, 20}, 2);
      const ScoreRule rule{.input = input, .is_signed = false};
      EXPECT_TRUE(torch::allclose(adapter_scores(x, vectors, rule).to(torch::kDouble), scores_by_definition(x, vectors, rule), 1e-4, 1e-5));
    }
    const auto vectors = draw({5, 1, 20}, 2);
    const ScoreRule rule{.input = input, .is_signed = true};
    EXPECT_TRUE(torch::allclose(adapter_scores(x, vectors, rule).to(torch::kDouble), scores_by_definition(x, vectors, rule), 1e-4, 1e-5));
  }
}

TEST(ScoreRouter, OfOneComponentIsArrow) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const auto prototypes = draw({9, 20}, 1);
    const auto x = draw({11, 20}, 2).to(dtype);
    const Calibration calibration{draw({9}, 3), draw({9}, 4).abs() + 0.5};
    const auto bias = std::make_shared<GroupTable>(9);
    const auto row = draw({9}, 5);
    const auto lease = bias->hold(std::span(row.data_ptr<float>(), 9));
    std::vector<std::int32_t> groups(11, 1);
    groups[4] = 0;
    const auto one = ArrowRouter(prototypes, {.top_k = 3, .temperature = 0.5}, calibration, bias).route(x, groups);
    const auto other = ScoreRouter(prototypes.unsqueeze(1), {.top_k = 3, .temperature = 0.5}, calibration, bias).route(x, groups);
    EXPECT_TRUE(one.index.equal(other.index));
    EXPECT_TRUE(torch::allclose(one.weight, other.weight, 1e-4, 1e-5));
  }
}

TEST(ScoreRouter, WeighsEquallyOrInProportion) {
  const auto vectors = draw({7, 2, 20}, 1), x = draw({5, 20}, 2);
  const auto [scores, index] = scores_by_definition(x, vectors, {}).topk(3, 1);
  const auto equal = ScoreRouter(vectors, {.top_k = 3, .weighting = Weighting::kEqual}).route(x);
  EXPECT_TRUE(equal.index.equal(index));
  EXPECT_TRUE(torch::allclose(equal.weight, torch::full({5, 3}, 1.0 / 3)));
  const auto proportional = ScoreRouter(vectors, {.top_k = 3, .weighting = Weighting::kProportional}).route(x);
  EXPECT_TRUE(torch::allclose(proportional.weight.to(torch::kDouble), scores / scores.sum(1, true), 1e-4, 1e-5));
}

TEST(ScoreRouter, AShortlistLooksAtTheBestOfTheFirstComponentAlone) {
  const auto vectors = torch::stack({directions(pair_of(1, 3), 0, 0), directions(pair_of(2, 3), 0, 0), directions(pair_of(3, 3), 0, 0),
                                     directions(pair_of(4, 3), 0, 0), directions(pair_of(5, 3), 0, 0)});
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    SCOPED_TRACE(dtype);
    const auto x = draw({40, 20}, 9).to(dtype);
    const auto first = scores_by_definition(x, vectors.narrow(1, 0, 1), {});
    const auto shortlist = std::get<1>(first.topk(2, 1));
    const auto masked = torch::full_like(first, -1e9).scatter_(1, shortlist, scores_by_definition(x, vectors, {}).gather(1, shortlist));
    const auto decision = ScoreRouter(vectors, {.top_k = 1, .shortlist = 2}).route(x);
    EXPECT_TRUE(decision.index.squeeze(1).equal(masked.argmax(1)));
    EXPECT_FALSE(decision.index.squeeze(1).equal(scores_by_definition(x, vectors, {}).argmax(1)));  // it does cut
    const auto all = ScoreRouter(vectors, {.top_k = 2, .shortlist = 5}).route(x), plain = ScoreRouter(vectors, {.top_k = 2}).route(x);
    EXPECT_TRUE(all.index.equal(plain.index));
    EXPECT_TRUE(torch::allclose(all.weight, plain.weight, 1e-4, 1e-5));
  }
}

TEST(ScoreRouter, SaysWhatIsWrong) {
  const auto vectors = draw({4, 2, 8}, 1);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ScoreRouter(draw({4, 8}, 1), {.top_k = 1}); }), HasSubstr("[N, c, d_in]"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ScoreRouter(vectors, {.top_k = 1, .rule = {.is_signed = true}}); }),
              HasSubstr("expected one"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ScoreRouter(vectors, {.top_k = 5}); }), HasSubstr("larger than the library of 4"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { ScoreRouter(vectors, {.top_k = 3, .shortlist = 2}); }), HasSubstr("expected 3 to 4"));
}

TEST(GroupRouter, ServesEveryTokenOfAGroupAlike) {
  const auto table = std::make_shared<GroupTable>(4);
  const auto first = table->hold(std::vector<float>{0.1F, 0, 0.6F, 0.3F}), second = table->hold(std::vector<float>{0, 1, 0, 0});
  const auto decision = GroupRouter(table, 2).route(draw({3, 8}, 1), std::vector<std::int32_t>{1, 2, 1});
  EXPECT_TRUE(decision.index.equal(torch::tensor({{2, 3}, {1, 0}, {2, 3}}, torch::kLong)));
  EXPECT_TRUE(torch::allclose(decision.weight, torch::tensor({{0.6, 0.3}, {1.0, 0.0}, {0.6, 0.3}}, torch::kFloat)));
  EXPECT_EQ(GroupRouter(table, 1).route(draw({2, 8}, 1)).weight.sum().item<float>(), 0);  // no group: nobody is chosen
}

TEST(FallbackRouter, GivesTheShareToTheLastAdapter) {
  const auto prototypes = draw({5, 8}, 1), x = draw({6, 8}, 2);
  const auto inner = std::make_shared<ArrowRouter>(prototypes, ArrowOptions{.top_k = 3});
  const auto before = inner->route(x);
  const auto entropy = -(before.weight * before.weight.log()).sum(1) / std::log(3.0);
  const auto sorted = std::get<0>(before.weight.sort(1, true));
  const std::pair<FallbackOptions, torch::Tensor> cases[] = {
      {{.by = Fallback::kConstant, .strength = 0.3}, torch::full({6}, 0.3)},
      {{.by = Fallback::kEntropy, .strength = 2}, entropy.square()},
      {{.by = Fallback::kMargin, .strength = 1}, 1 - (sorted.select(1, 0) - sorted.select(1, 1))}};
  for (const auto& [options, share] : cases) {
    SCOPED_TRACE(static_cast<int>(options.by));
    const auto decision = FallbackRouter(inner, options).route(x);
    EXPECT_TRUE(decision.index.narrow(1, 0, 3).equal(before.index));
    EXPECT_TRUE(decision.index.select(1, 3).eq(5).all().item<bool>());
    EXPECT_TRUE(torch::allclose(decision.weight.select(1, 3), share.to(torch::kFloat), 1e-4, 1e-5));
    EXPECT_TRUE(torch::allclose(decision.weight.narrow(1, 0, 3), before.weight * (1 - share.to(torch::kFloat)).unsqueeze(1), 1e-4, 1e-5));
  }
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { FallbackRouter(inner, {.by = Fallback::kConstant, .strength = 1.5}); }),
              HasSubstr("1.5"));
}

TEST(ShareRouter, LeavesTheRestToTheBase) {
  const auto x = draw({4, 8}, 2);
  const auto inner = std::make_shared<ArrowRouter>(draw({5, 8}, 1), ArrowOptions{.top_k = 3});
  const auto shares = std::make_shared<GroupTable>(1);
  const auto quarter = shares->hold(std::vector<float>{0.25F}), all = shares->hold(std::vector<float>{1});
  const auto before = inner->route(x), after = ShareRouter(inner, shares).route(x, std::vector<std::int32_t>{1, 0, 2, 1});
  EXPECT_TRUE(after.index.equal(before.index));
  EXPECT_TRUE(after.weight.equal(before.weight * torch::tensor({0.25F, 0.0F, 1.0F, 0.25F}).unsqueeze(1)));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { ShareRouter(inner, std::make_shared<GroupTable>(2)); }), HasSubstr("width 2"));
}

}  // namespace
}  // namespace quiver::routing
