// Routed adapters on every family of tests/golden/families: whole passes against the definitions of their methods.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/model/decoder.h"
#include "quiver/model/families.h"
#include "quiver/model/model.h"
#include "quiver/routing/attach.h"
#include "quiver/routing/directions.h"
#include "quiver/routing/score_router.h"
#include "quiver/testing/dense_mixture.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/golden_cases.h"
#include "quiver/testing/reference_decoder.h"

namespace quiver::methods {
namespace {

using routing::Combine;
using torch::Tensor;
namespace fs = std::filesystem;

using quiver::testing::kFamilies;
constexpr std::int64_t kContext = 32;  // beyond the original one of phi3-long
constexpr std::int64_t kAdapters = 5, kRank = 2, kShortlist = 3, kTopK = 2;

std::vector<adapters::LoraAdapter> routed_adapters_of(const model::Model& base) {
  auto generator = quiver::testing::seeded(11);
  std::vector<adapters::LoraAdapter> adapters(kAdapters);
  for (auto& adapter : adapters) {
    for (const auto& [path, linear] : base.linears()) {
      const auto in = linear.in_features(), out = linear.out_features();
      adapter.pairs.emplace(path, adapters::LoraPair(torch::randn({kRank, in}, generator) / std::sqrt(in),
                                                     0.1 * torch::randn({out, kRank}, generator), 2 * kRank));
    }
  }
  for (std::size_t i = 0; i < adapters.size(); ++i) adapters[i].name = format("adapter {}", i);
  return adapters;
}

/// Two branches of one prefix, and a leaf of each.
forest::TokenForest branched(std::int64_t vocabulary) {
  RandomStream random(3, "branched");
  const auto tokens = [&](int count) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary))));
    return ids;
  };
  forest::TokenForest forest;
  const auto root = forest.add_segment(forest::kNoParent, tokens(9));
  for (const int length : {6, 3}) forest.add_segment(forest.add_segment(root, tokens(length)), tokens(2));
  return forest;
}

std::vector<adapters::LoraPair> pairs_at(std::span<const adapters::LoraAdapter> adapters, const std::string& path) {
  std::vector<adapters::LoraPair> pairs;
  for (const auto& adapter : adapters) pairs.push_back(adapter.pairs.at(path));
  return pairs;
}

/// The right singular vectors of every update, by the SVD of the whole matrix: [N, r, d_in].
Tensor whole_svd(std::span<const adapters::LoraPair> pairs) {
  std::vector<Tensor> vectors;
  for (const auto& pair : pairs) {
    const auto delta = pair.to(torch::kCPU, torch::kDouble).delta();
    vectors.push_back(std::get<2>(torch::linalg_svd(delta, /*full_matrices=*/false)).narrow(0, 0, kRank));
  }
  return torch::stack(vectors);
}

/// The k largest scores of each token, weighted by their softmax.
routing::RoutingDecision top_of(const Tensor& scores, std::int64_t k) {
  const auto [best, index] = scores.topk(k, 1);
  return {index, best.softmax(1)};
}

/// Arrow (Ostapenko et al. 2024, alg. 2): |v_1 . x|.
routing::RoutingDecision arrow_by_definition(const Tensor& vectors, const Tensor& x) {
  return top_of(x.matmul(vectors.select(1, 0).t()).abs(), kTopK);
}

/// LAG (Fleshman and Van Durme 2025): of the adapters with the largest |v_1 . x|, the one with the largest |V x|.
routing::RoutingDecision lag_by_definition(const Tensor& vectors, const Tensor& x) {
  const auto first = x.matmul(vectors.select(1, 0).t()).abs();
  const auto passed = torch::zeros_like(first).scatter_(1, std::get<1>(first.topk(kShortlist, 1)), 1.0);
  const auto norms = torch::einsum("nci,ti->tnc", {vectors, x}).norm(2, {2});
  return top_of(norms.masked_fill(passed == 0, -1), 1);
}

using Decision = routing::RoutingDecision (*)(const Tensor& vectors, const Tensor& x);

testing::LinearDefinitions definitions(std::span<const adapters::LoraAdapter> adapters, Decision decision, Combine combine) {
  testing::LinearDefinitions all;
  for (const auto& [path, first] : adapters[0].pairs) {
    const auto pairs = pairs_at(adapters, path);
    all[path] = [pairs, vectors = whole_svd(pairs), decision, combine](const Tensor& x, const Tensor& weight, const Tensor& bias) {
      const auto y = testing::dense_mixture(weight, pairs, decision(vectors, x), x, combine);
      return bias.defined() ? y + bias : y;
    };
  }
  return all;
}

std::map<std::string, routing::RouterPtr> lag_routers(std::span<const adapters::LoraAdapter> adapters) {
  std::map<std::string, routing::RouterPtr> routers;
  for (const auto& [path, vectors] : routing::stacked_directions(adapters, 0, 0)) {
    routers[path] = std::make_shared<routing::ScoreRouter>(vectors, routing::ScoreOptions{.top_k = 1, .rule = {}, .shortlist = kShortlist});
  }
  return routers;
}

class RoutedFamilies : public ::testing::TestWithParam<std::string> {
 protected:
  /// The largest difference between the pass with `linears` and the definition, as a share of the largest logit.
  double error_of(const nn::LinearMap& linears, const testing::LinearDefinitions& definitions) const {
    const torch::NoGradGuard no_grad;
    const auto expected = testing::reference_logits(base_, testing::reference_hidden(base_, forest_, definitions));
    const auto routed = base_.with_linears(linears);
    const auto logits = routed.head().logits(model::hidden_of_all(routed, model::forest_rows(forest_)));
    return ((logits - expected).abs().max() / expected.abs().max()).item<double>();
  }

  const model::Model base_ = model::load_model(kFamilies / GetParam(), {torch::kCPU, torch::kDouble}, {.context = kContext});
  const std::vector<adapters::LoraAdapter> adapters_ = routed_adapters_of(base_);
  const forest::TokenForest forest_ = branched(base_.spec().vocab_size);
};

// Vectors and weights of routers are float32, and random models magnify a difference.
constexpr double kTolerance = 1e-5;

TEST_P(RoutedFamilies, ArrowIsItsDefinition) {
  EXPECT_GT(error_of(base_.linears(), definitions(adapters_, arrow_by_definition, Combine::kParams)), 1000 * kTolerance);
  for (const auto combine : {Combine::kParams, Combine::kOutputs}) {
    auto linears = base_.linears();
    routing::attach_routed(linears, adapters_, {.top_k = kTopK}, combine);
    EXPECT_LT(error_of(linears, definitions(adapters_, arrow_by_definition, combine)), kTolerance);
  }
}

TEST_P(RoutedFamilies, LagIsItsDefinition) {
  for (const auto combine : {Combine::kParams, Combine::kOutputs}) {
    auto linears = base_.linears();
    routing::attach_routers(linears, adapters_, lag_routers(adapters_), combine);
    EXPECT_LT(error_of(linears, definitions(adapters_, lag_by_definition, combine)), kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, RoutedFamilies, ::testing::ValuesIn(quiver::testing::golden_cases(kFamilies)), quiver::testing::case_name);

}  // namespace
}  // namespace quiver::methods
