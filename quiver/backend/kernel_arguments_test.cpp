// Arguments that a kernel would misread are refused by name: another dtype, shape or layout is never a wrong number.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/attention.h"
#include "quiver/backend/cpu/packed_matrix.h"
#include "quiver/backend/frozen_matrix.h"
#include "quiver/backend/low_rank.h"
#include "quiver/backend/ops.h"
#include "quiver/backend/routed_lora.h"
#include "quiver/base/error.h"
#include "quiver/forest/token_forest.h"
#include "quiver/testing/message_of.h"

namespace quiver::backend {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::function<void()>& action) { return quiver::testing::message_of(ErrorKind::kInternal, action); }

const torch::Tensor kRows = torch::ones({4, 6}), kFlipped = torch::ones({6, 4}).t();  // [4, 6] both
const torch::Tensor kWeight = torch::ones({6}), kInverse = torch::ones({4});
const torch::Tensor kHalf = kRows.to(torch::kBFloat16), kDouble = kRows.to(torch::kDouble);

TEST(KernelArguments, RmsNormRefusesOthers) {
  EXPECT_THAT(refusal([] { rms_norm(kFlipped, kWeight, 1e-5); }),
              HasSubstr("x of rms_norm: Float [4, 6] with strides [1, 4] on cpu; expected a contiguous Float [4, 6]"));
  EXPECT_THAT(refusal([] { rms_norm(kRows, kWeight.to(torch::kDouble), 1e-5); }), HasSubstr("weight of rms_norm: Double [6]"));
  EXPECT_THAT(refusal([] { rms_norm(kRows, torch::ones({12}).slice(0, 0, 12, 2), 1e-5); }), HasSubstr("weight of rms_norm"));
  EXPECT_THAT(refusal([] { rms_norm(kRows, torch::ones({5}), 1e-5); }), HasSubstr("weight of rms_norm: Float [5]"));
}

TEST(KernelArguments, TheGradientOfRmsNormRefusesOthers) {
  const auto of = [](const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& inverse, const torch::Tensor& onto) {
    return refusal([&] { rms_norm_gradient(dy, x, kWeight, inverse, onto); });
  };
  EXPECT_THAT(of(kFlipped, kRows, kInverse, {}), HasSubstr("dy of rms_norm_gradient"));
  EXPECT_THAT(of(kHalf, kRows, kInverse, {}), HasSubstr("dy of rms_norm_gradient: BFloat16 [4, 6]"));
  EXPECT_THAT(of(kRows, kFlipped, kInverse, {}), HasSubstr("x of rms_norm_gradient"));
  EXPECT_THAT(of(kRows, kRows, kInverse.to(torch::kDouble), {}), HasSubstr("inverse_rms of rms_norm_gradient: Double [4]"));
  EXPECT_THAT(of(kRows, kRows, kInverse, kFlipped), HasSubstr("onto of rms_norm_gradient"));
  EXPECT_THAT(of(kRows, kRows, kInverse, kHalf), HasSubstr("onto of rms_norm_gradient: BFloat16 [4, 6]"));
}

TEST(KernelArguments, RotationRefusesOthers) {
  const auto x = torch::ones({3, 2, 8}), angles = torch::ones({3, 4});
  const auto of = [](const torch::Tensor& in, const torch::Tensor& cosine, const torch::Tensor& sine, const torch::Tensor& out) {
    return refusal([&] { rotate_into(in, cosine, sine, Rotation::kForward, out); });
  };
  EXPECT_THAT(of(torch::ones({2, 3, 8}).transpose(0, 1), angles, angles, x), HasSubstr("x of rotate: Float [3, 2, 8]"));
  EXPECT_THAT(of(x, angles.to(torch::kDouble), angles, x), HasSubstr("cosine of rotate: Double [3, 4]"));
  EXPECT_THAT(of(x, angles, torch::ones({4, 3}).t(), x), HasSubstr("sine of rotate"));
  EXPECT_THAT(of(x, angles, angles, torch::empty({2, 3, 8}).transpose(0, 1)), HasSubstr("out of rotate"));
  EXPECT_THAT(of(x, angles, angles, x.to(torch::kBFloat16)), HasSubstr("out of rotate: BFloat16"));
  EXPECT_THAT(of(x, torch::ones({2, 4}), angles, x), HasSubstr("cosine of rotate: Float [2, 4]"));
}

TEST(KernelArguments, SwigluRefusesOthers) {
  EXPECT_THAT(refusal([] { gated(Activation::kSilu, kRows, kHalf); }), HasSubstr("up of gated: BFloat16 [4, 6]"));
  EXPECT_THAT(refusal([] { gated(Activation::kSilu, kRows, torch::ones({4, 5})); }), HasSubstr("up of gated: Float [4, 5]"));
  EXPECT_THAT(refusal([] { gated_gradient(Activation::kSilu, kFlipped, kRows, kRows); }), HasSubstr("dy of gated_gradient"));
  EXPECT_THAT(refusal([] { gated_gradient(Activation::kSilu, kRows, kFlipped, kRows); }), HasSubstr("gate of gated_gradient"));
  EXPECT_THAT(refusal([] { gated_gradient(Activation::kSilu, kRows, kRows, kFlipped); }), HasSubstr("up of gated_gradient"));
  EXPECT_THAT(refusal([] { gated_gradient(Activation::kSilu, kDouble, kRows, kRows); }), HasSubstr("dy of gated_gradient: Double [4, 6]"));
}

TEST(KernelArguments, TheLossRefusesTargetsOfAnotherType) {
  auto logits = torch::ones({4, 5});
  EXPECT_THAT(refusal([&] { cross_entropy_into(logits, torch::zeros({8}, torch::kLong).slice(0, 0, 8, 2), torch::ones({4})); }),
              HasSubstr("target of head_loss: Long [4] with strides [2]"));
}

TEST(KernelArguments, AttentionRefusesOthers) {
  forest::TokenForest forest;
  forest.add_segment(forest::kNoParent, std::vector<std::int32_t>{1, 2, 3});
  const auto plan = plan_forest(forest);
  const auto q = torch::ones({3, 2, 8}), k = torch::ones({3, 1, 8}), lse = torch::ones({2, 3});
  const auto flipped = torch::ones({2, 3, 8}).transpose(0, 1), half = k.to(torch::kBFloat16);
  const auto of = [&](const torch::Tensor& dout, const torch::Tensor& queries, const Attended& attended) {
    return refusal([&] { forest_attention_gradient(dout, queries, k, k, attended, plan, {1}); });
  };
  EXPECT_THAT(refusal([&] { forest_attention(q, half, half, plan, {1}); }), HasSubstr("k of attention: BFloat16 [3, 1, 8]"));
  EXPECT_THAT(refusal([&] { forest_attention(q, k, half, plan, {1}); }), HasSubstr("v of attention: BFloat16 [3, 1, 8]"));
  EXPECT_THAT(of(half, q, {q, lse}), HasSubstr("dout of attention"));
  auto neither = *plan;
  neither.chunks = {};
  EXPECT_THAT(refusal([&] { forest_attention(q, k, k, std::make_shared<AttentionPlan>(neither), {1}); }),
              HasSubstr("a plan of 3 queries shares out 0 of them"));
  EXPECT_THAT(of(q, flipped, {q, lse}), HasSubstr("q of attention: Float [3, 2, 8]"));
  EXPECT_THAT(of(q, q, {flipped, lse}), HasSubstr("out of attention"));
  EXPECT_THAT(of(q, q, {q, lse.to(torch::kDouble)}), HasSubstr("lse of attention: Double [2, 3]"));
}

TEST(KernelArguments, FrozenProductsRefuseOthers) {
  const auto weight = torch::arange(12, torch::kFloat).view({3, 4});
  const FrozenMatrix matrix(weight);
  EXPECT_THAT(refusal([&] { cpu::PackedMatrix(weight.to(torch::kDouble), tensor::CpuIsa::kV2); }),
              HasSubstr("weight of PackedMatrix: Double [3, 4]"));
  EXPECT_THAT(refusal([&] {
                matrix.product(torch::ones({2, 4}), torch::ones({3}, torch::kDouble));
              }),
              HasSubstr("bias of a product: Double [3]"));
  EXPECT_THAT(refusal([&] { matrix.product(torch::ones({2, 4}), {}, torch::ones({2, 4})); }), HasSubstr("onto of a product: Float [2, 4]"));
}

TEST(KernelArguments, SmallProductsRefuseOthers) {
  const auto x = torch::ones({4, 6}), factor = torch::ones({3, 6}), z = torch::ones({4, 3}), flipped = torch::ones({3, 4}).t();
  const auto wide = [](const torch::Tensor& t) { return t.to(torch::kDouble); };
  EXPECT_THAT(refusal([&] { shrink(x, wide(factor)); }), HasSubstr("factor of shrink: Double [3, 6]"));
  EXPECT_THAT(refusal([&] { shrink(x, torch::ones({3, 5})); }), HasSubstr("factor of shrink: Float [3, 5]"));
  EXPECT_THAT(refusal([&] { expand(flipped, factor, {}, torch::kFloat); }),
              HasSubstr("z of expand: Float [4, 3] with strides [1, 4] on cpu; expected a contiguous Float [4, 3]"));
  EXPECT_THAT(refusal([&] { expand(wide(z), factor, {}, torch::kFloat); }), HasSubstr("z of expand: Double [4, 3]"));
  EXPECT_THAT(refusal([&] { expand(z, wide(factor), {}, torch::kFloat); }), HasSubstr("factor of expand: Double [3, 6]"));
  EXPECT_THAT(refusal([&] { expand(z, factor, wide(x), torch::kFloat); }), HasSubstr("onto of expand: Double [4, 6]"));
  EXPECT_THAT(refusal([&] { expand(z, factor, torch::ones({4, 5}), torch::kFloat); }), HasSubstr("onto of expand: Float [4, 5]"));
  EXPECT_THAT(refusal([&] { outer_product(flipped, x); }), HasSubstr("z of outer_product: Float [4, 3] with strides [1, 4]"));
  EXPECT_THAT(refusal([&] { outer_product(wide(z), x); }), HasSubstr("z of outer_product: Double [4, 3]"));
  EXPECT_THAT(refusal([&] { outer_product(torch::ones({5, 3}), x); }), HasSubstr("z of outer_product: Float [5, 3]"));
}

TEST(KernelArguments, RoutedLorasRefuseOthers) {
  const auto adapters =
      pack_adapters({{torch::ones({2, 6}), torch::ones({5, 2}), 1}, {torch::ones({2, 6}), torch::ones({5, 2}), 1}}, torch::kCPU);
  const auto x = torch::ones({4, 6}), y = torch::zeros({4, 5}), weight = torch::ones({4, 1});
  const auto index = torch::zeros({4, 1}, torch::kLong);
  const auto of = [&](const Chosen& chosen, const torch::Tensor& out) {
    return refusal([&] { add_routed(adapters, x, chosen, Combine::kOutputs, out); });
  };
  EXPECT_THAT(of({index.to(torch::kInt), weight}, y), HasSubstr("index of routed LoRAs: Int [4, 1]"));
  EXPECT_THAT(of({index, weight.to(torch::kDouble)}, y), HasSubstr("weight of routed LoRAs: Double [4, 1]"));
  EXPECT_THAT(of({index, weight}, torch::zeros({5, 4}).t()), HasSubstr("y Float [4, 5]"));
  EXPECT_THAT(of({index + 2, weight}, y), HasSubstr("a router chose adapter 2 of 2"));
  EXPECT_THAT(of({index - 1, weight}, y), HasSubstr("a router chose adapter -1 of 2"));
  EXPECT_TRUE(y.equal(torch::zeros({4, 5})));
  const auto vectors = pack_vectors(torch::ones({2, 3, 6}));
  EXPECT_THAT(refusal([&] { shrink_routed(vectors, x, index.to(torch::kInt)); }), HasSubstr("index of routed LoRAs: Int [4, 1]"));
  EXPECT_THAT(refusal([&] { shrink_routed(vectors, torch::ones({4, 7}), index); }), HasSubstr("x Float [4, 7] does not fit vectors"));
}

TEST(KernelArguments, RoutingRefusesOthers) {
  const auto prototypes = pack_prototypes(torch::ones({3, 6}));
  const auto x = torch::ones({4, 6});
  const auto of = [&](const ScoreAdjustment& adjustment) { return refusal([&] { route(prototypes, x, 1, 1, adjustment); }); };
  const auto placed = [](const torch::Tensor& t) { return tensor::Placed(t); };
  const auto three = torch::ones({3});
  const std::vector<float> table(6);
  const std::vector<std::int32_t> groups = {0, 1, 2, 0};
  EXPECT_THAT(refusal([&] {
                route(prototypes, torch::ones({4, 7}), 1, 1);
              }),
              HasSubstr("x Float [4, 7] does not fit vectors Float [3, 6]"));
  EXPECT_THAT(of({.scale = placed(three.to(torch::kDouble)), .shift = placed(three)}), HasSubstr("scale of Arrow's kernel: Double [3]"));
  EXPECT_THAT(of({.scale = placed(three), .shift = placed(torch::ones({2}))}), HasSubstr("shift of Arrow's kernel: Float [2]"));
  EXPECT_THAT(of({.bias = table, .groups = groups}), HasSubstr("group 2 of 2"));
  EXPECT_THAT(of({.bias = table, .groups = std::span(groups).first(3)}), HasSubstr("a table of 6 numbers and 3 groups of rows"));
}

}  // namespace
}  // namespace quiver::backend
