// Against PEFT and NumPy (tests/golden/arrow/README.md), one projection at a time. The whole model
// is compared where there is one.
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <memory>
#include <string>
#include <vector>

#include "quiver/adapters/peft.h"
#include "quiver/nn/linear.h"
#include "quiver/routing/attach.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

const std::string kGolden = "tests/golden/arrow/";

/// |<p, q>| of unit vectors: 1 if they are equal up to sign.
double agreement(const torch::Tensor& p, const torch::Tensor& q) {
  return p.to(torch::kDouble).dot(q.to(torch::kDouble)).abs().item<double>();
}

TEST(ArrowGolden, PrototypesAreThoseOfTheDenseSvd) {
  const auto tensors = tensor::load_tensors(kGolden + "dense_prototypes.safetensors");
  for (int i = 0; i < 8; ++i) {
    const auto at = [&](const std::string& what) { return tensors.at(std::to_string(i) + "." + what); };
    const auto prototype = arrow_prototype(adapters::LoraPair(at("lora_a"), at("lora_b"), 16)).to(torch::kDouble);
    const auto expected = at("prototype");
    const auto sign = prototype.dot(expected).sign();
    EXPECT_TRUE(torch::allclose(prototype * sign, expected, 0, 1e-6)) << "pair " << i;
  }
}

TEST(ArrowGolden, PrototypesAreThoseOfPeft) {
  std::vector<adapters::LoraAdapter> adapters;
  for (int i = 0; i < 6; ++i) adapters.push_back(adapters::load_peft(kGolden + "adapter-" + std::to_string(i)));
  const auto ours = prototypes(adapters);
  const auto theirs = tensor::load_tensors(kGolden + "prototypes.safetensors");
  ASSERT_EQ(ours.size(), theirs.size());
  for (const auto& [path, rows] : ours) {
    const auto& expected = theirs.at("prototypes.model." + path);
    ASSERT_EQ(rows.sizes(), expected.sizes()) << path;
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      EXPECT_NEAR(agreement(rows[i], expected[i]), 1, 1e-6) << path << " adapter " << i;
    }
  }
}

class ArrowGoldenLinear : public ::testing::TestWithParam<torch::Dtype> {};

TEST_P(ArrowGoldenLinear, MatchesNumPyForEveryTopK) {
  const auto golden = tensor::load_tensors(kGolden + "single_linear.safetensors");
  const auto dtype = GetParam();
  const auto x = golden.at("x").to(dtype);
  const auto num_adapters = golden.at("lora_a").size(0);
  const auto rank = golden.at("lora_a").size(1);
  const double alpha = golden.at("scaling").item<double>() * static_cast<double>(rank);
  std::vector<adapters::LoraPair> pairs;
  std::vector<torch::Tensor> rows;
  for (std::int64_t i = 0; i < num_adapters; ++i) {
    SCOPED_TRACE(i);
    pairs.emplace_back(golden.at("lora_a")[i].to(dtype), golden.at("lora_b")[i].to(dtype), alpha);
    rows.push_back(arrow_prototype(pairs.back()));
    EXPECT_NEAR(agreement(rows.back(), golden.at("prototypes")[i]), 1, 1e-6);
  }
  const nn::Linear base(golden.at("weight").to(dtype));
  for (std::int64_t top_k = 1; top_k <= num_adapters; ++top_k) {
    const auto router = std::make_shared<ArrowRouter>(torch::stack(rows),
                                                      ArrowOptions{.top_k = top_k, .temperature = golden.at("temperature").item<double>()});
    const auto [index, weight] = router->route(x);
    const auto weights = torch::zeros({x.size(0), num_adapters}).scatter_(1, index, weight);
    const auto at = [&](const std::string& what) { return golden.at("k" + std::to_string(top_k) + "." + what); };
    EXPECT_TRUE(torch::allclose(weights.to(torch::kDouble), at("weights"), 0, 1e-5)) << top_k;
    for (const auto& [combine, what] : {std::pair{Combine::kOutputs, "outputs"}, {Combine::kParams, "parameters"}}) {
      const auto y = base.with(std::make_shared<RoutedUpdate>(base, pairs, router, combine)).forward(x);
      // Routing is float32 even where the rest is float64.
      EXPECT_TRUE(torch::allclose(y.to(torch::kDouble), at(what), 0, 1e-5)) << what << " " << top_k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ArrowGoldenLinear, ::testing::Values(torch::kFloat, torch::kDouble),
                         [](const auto& param) { return std::string(torch::toString(param.param)); });

}  // namespace
}  // namespace quiver::routing
