#include "quiver/adapters/dora_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/init.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/reference_decoder.h"

namespace quiver::adapters {
namespace {

using testing::draw;
using ::testing::HasSubstr;
using testing::message_of;

constexpr std::int64_t kIn = 40, kOut = 24, kRank = 3, kRows = 17;

LoraPair random_dora(torch::Dtype dtype) {
  return LoraPair(draw({kRank, kIn}, 1), draw({kOut, kRank}, 2), 4, false, draw({kOut}, 3).abs() + 0.5).to(torch::kCPU, dtype);
}

/// The passes against autograd through the definition, which forms W + s B A.
TEST(DoraUpdate, EqualsItsDefinitionWithGradients) {
  for (const auto& [dtype, tolerance] :
       {std::pair(torch::kDouble, 1e-12), std::pair(torch::kFloat, 1e-5), std::pair(torch::kBFloat16, 3e-2)}) {
    for (const bool with_bias : {false, true}) {
      const auto weight = draw({kOut, kIn}, 4).to(dtype), bias = with_bias ? draw({kOut}, 5).to(dtype) : torch::Tensor();
      const nn::Linear below(weight, bias);
      const auto pair = random_dora(tensor::compute_dtype(dtype));
      const auto sink = std::make_shared<nn::GradientSink>();
      for (const auto& t : pair.tensors()) sink->sums.push_back(torch::zeros_like(t));
      const auto linear = below.with(nn::TrainedUpdate{std::make_shared<DoraUpdate>(below, pair), sink});
      const auto x = draw({kRows, kIn}, 6).to(dtype), onto = draw({kRows, kOut}, 7).to(dtype), dy = draw({kRows, kOut}, 8).to(dtype),
                 dx_onto = draw({kRows, kIn}, 9).to(dtype);
      nn::LinearRecord record;
      const auto y = linear.forward(x, onto, {}, record);
      auto dx = dx_onto;
      linear.backward(dy, x, &dx, {}, record);
      linear.add_gradients(record);

      const auto wide = [](const torch::Tensor& t) { return t.defined() ? t.to(torch::kDouble) : t; };
      std::vector<torch::Tensor> leaves;
      for (const auto& t : pair.tensors()) leaves.push_back(wide(t).clone().requires_grad_());
      const auto leaf = wide(x).clone().requires_grad_();
      const auto expected = testing::lora_definition(pair.with_tensors(leaves))(leaf, wide(weight), wide(bias));
      expected.backward(wide(dy));
      const auto near = [&, tolerance = tolerance](const torch::Tensor& a, const torch::Tensor& b, const char* what) {
        EXPECT_LE((wide(a) - b).norm().item<double>(), tolerance * b.norm().item<double>())
            << what << " " << dtype << " bias " << with_bias;
      };
      near(y, expected + wide(onto), "y");
      near(dx, leaf.grad() + wide(dx_onto), "dx");
      for (std::size_t i = 0; i < leaves.size(); ++i) near(sink->sums[i], leaves[i].grad(), "a parameter's gradient");
    }
  }
}

TEST(DoraUpdate, FollowsItsFactorsOnceToldSo) {
  const nn::Linear below(draw({kOut, kIn}, 4).to(torch::kDouble));
  const auto pair = random_dora(torch::kDouble);
  const auto dora = std::make_shared<DoraUpdate>(below, pair);
  const auto& b = pair.lora_b();
  b.mul_(3);
  dora->update();
  const auto x = draw({kRows, kIn}, 6).to(torch::kDouble);
  EXPECT_TRUE(torch::allclose(below.with(dora).forward(x), x.matmul(merged_weight(below.weight().dense(), pair).t())));
}

TEST(DoraUpdate, ChangesNothingAtFirst) {
  nn::LinearMap linears;
  linears["q_proj"] = nn::Linear(draw({kOut, kIn}, 4));
  const auto adapter = initial_adapter("a", {.use_dora = true, .target_modules = {"q_proj"}}, linears, 1);
  const auto x = draw({kRows, kIn}, 6);
  EXPECT_TRUE(torch::allclose(attach(linears, adapter).at("q_proj").forward(x), linears.at("q_proj").forward(x), 1e-5, 1e-5));
}

TEST(DoraUpdate, IsRefusedWhereUpdatesAreMixed) {
  nn::LinearMap projections;
  projections["q_proj"] = nn::Linear(draw({kOut, kIn}, 4));
  const std::vector<LoraAdapter> adapters = {initial_adapter("one", {.use_dora = true, .target_modules = {"q_proj"}}, projections, 1)};
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { adapters[0].pairs.at("q_proj").apply(draw({1, kIn}, 1)); }), HasSubstr("attach"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { check({.dropout = 0.1, .use_dora = true}); }), HasSubstr("with DoRA"));
  EXPECT_ERROR(LoraPair(draw({kRank, kIn}, 1), draw({kOut, kRank}, 2), 4, false, draw({kOut + 1}, 3)), ErrorKind::kMismatch,
               "not a DoRA: the magnitude is Float [");
}

}  // namespace
}  // namespace quiver::adapters
