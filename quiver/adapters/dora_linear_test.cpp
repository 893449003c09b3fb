#include "quiver/adapters/dora_linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/init.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::adapters {
namespace {

using testing::draw;
using ::testing::HasSubstr;
using testing::message_of;

constexpr std::int64_t kIn = 40, kOut = 24, kRank = 3, kRows = 17;

/// Factors and magnitude as leaves with gradients.
LoraPair leaves(torch::Dtype dtype) {
  const auto leaf = [&](const torch::Tensor& t) {
    auto copy = t.to(dtype).clone().requires_grad_();
    copy.mutable_grad() = torch::zeros_like(copy);
    return copy;
  };
  return LoraPair(leaf(draw({kRank, kIn}, 1)), leaf(draw({kOut, kRank}, 2)), 4, false, leaf(draw({kOut}, 3).abs() + 0.5));
}

/// The pass that training runs against autograd through the definition, which forms W + s B A.
TEST(DoraLinear, EqualsItsDefinitionWithGradients) {
  for (const auto& [dtype, tolerance] :
       {std::pair(torch::kDouble, 1e-12), std::pair(torch::kFloat, 1e-5), std::pair(torch::kBFloat16, 3e-2)}) {
    for (const bool with_bias : {false, true}) {
      const auto base =
          std::make_shared<nn::DenseProjection>(draw({kOut, kIn}, 4).to(dtype), with_bias ? draw({kOut}, 5).to(dtype) : torch::Tensor());
      const auto pair = leaves(dtype == torch::kDouble ? torch::kDouble : torch::kFloat);
      DoraLinear layer(base, pair);
      auto x = draw({kRows, kIn}, 6).to(dtype).requires_grad_();
      const auto onto = draw({kRows, kOut}, 7).to(dtype), dy = draw({kRows, kOut}, 8).to(dtype), dx_onto = draw({kRows, kIn}, 9).to(dtype);
      const auto expected = layer.forward(x);
      expected.backward(dy);
      std::vector<torch::Tensor> gradients;
      for (const auto& t : pair.tensors()) gradients.push_back(t.grad().clone());

      const torch::NoGradGuard no_grad;
      nn::RowRecord record;
      const auto y = layer.forward_rows(x, onto, record);
      const auto dx = layer.backward_rows(dy, x, dx_onto, true, record);
      for (const auto& t : pair.tensors()) t.mutable_grad().zero_();
      layer.add_gradients(record);
      const auto near = [&, tolerance = tolerance](const torch::Tensor& a, const torch::Tensor& b, const char* what) {
        EXPECT_LE((a - b).norm().item<double>(), tolerance * b.norm().item<double>()) << what << " " << dtype << " bias " << with_bias;
      };
      near(y, expected + onto, "y");
      near(dx, x.grad() + dx_onto, "dx");
      for (std::size_t i = 0; i < gradients.size(); ++i) near(pair.tensors()[i].grad(), gradients[i], "a parameter's gradient");
    }
  }
}

TEST(DoraLinear, FollowsItsFactorsOnceToldSo) {
  const auto base = std::make_shared<nn::DenseProjection>(draw({kOut, kIn}, 4).to(torch::kDouble));
  const torch::NoGradGuard no_grad;
  const auto pair = leaves(torch::kDouble);
  DoraLinear layer(base, pair);
  pair.lora_b().mul_(3);
  layer.update();
  const auto x = draw({kRows, kIn}, 6).to(torch::kDouble);
  nn::RowRecord record;
  EXPECT_TRUE(torch::allclose(layer.forward_rows(x, {}, record), x.matmul(merged_weight(base->base_weight(), pair).t())));
}

TEST(DoraLinear, ChangesNothingAtFirst) {
  nn::ProjectionMap projections;
  projections["q_proj"] = std::make_shared<nn::DenseProjection>(draw({kOut, kIn}, 4));
  const auto adapter = initial_adapter("a", {.use_dora = true, .target_modules = {"q_proj"}}, projections, 1);
  const auto x = draw({kRows, kIn}, 6);
  EXPECT_TRUE(torch::allclose(attach(projections, adapter).at("q_proj")->forward(x), projections.at("q_proj")->forward(x), 1e-5, 1e-5));
}

TEST(DoraLinear, IsRefusedWhereUpdatesAreMixed) {
  nn::ProjectionMap projections;
  projections["q_proj"] = std::make_shared<nn::DenseProjection>(draw({kOut, kIn}, 4));
  const std::vector<LoraAdapter> adapters = {initial_adapter("one", {.use_dora = true, .target_modules = {"q_proj"}}, projections, 1)};
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { adapters[0].pairs.at("q_proj").apply(draw({1, kIn}, 1)); }), HasSubstr("attach"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { check({.dropout = 0.1, .use_dora = true}); }), HasSubstr("with DoRA"));
  EXPECT_ERROR(LoraPair(draw({kRank, kIn}, 1), draw({kOut, kRank}, 2), 4, false, draw({kOut + 1}, 3)), ErrorKind::kMismatch,
               "not a DoRA: the magnitude is Float [");
}

}  // namespace
}  // namespace quiver::adapters
