// Arguments that a kernel would misread are refused by name: another dtype, shape or layout is never a wrong number.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/attention.h"
#include "quiver/backend/attention_kernel.h"
#include "quiver/backend/frozen_matrix.h"
#include "quiver/backend/ops.h"
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
  EXPECT_THAT(refusal([] { rms_norm_rows(kFlipped, kWeight, 1e-5); }),
              HasSubstr("x of rms_norm: Float [4, 6] with strides [1, 4] on cpu; expected a contiguous Float [4, 6]"));
  EXPECT_THAT(refusal([] { rms_norm_rows(kRows, kWeight.to(torch::kDouble), 1e-5); }), HasSubstr("weight of rms_norm: Double [6]"));
  EXPECT_THAT(refusal([] { rms_norm_rows(kRows, torch::ones({12}).slice(0, 0, 12, 2), 1e-5); }), HasSubstr("weight of rms_norm"));
  EXPECT_THAT(refusal([] { rms_norm_rows(kRows, torch::ones({5}), 1e-5); }), HasSubstr("weight of rms_norm: Float [5]"));
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
    return refusal([&] { rotate_into(in, cosine, sine, false, out); });
  };
  EXPECT_THAT(of(torch::ones({2, 3, 8}).transpose(0, 1), angles, angles, x), HasSubstr("x of rotate: Float [3, 2, 8]"));
  EXPECT_THAT(of(x, angles.to(torch::kDouble), angles, x), HasSubstr("cosine of rotate: Double [3, 4]"));
  EXPECT_THAT(of(x, angles, torch::ones({4, 3}).t(), x), HasSubstr("sine of rotate"));
  EXPECT_THAT(of(x, angles, angles, torch::empty({2, 3, 8}).transpose(0, 1)), HasSubstr("out of rotate"));
  EXPECT_THAT(of(x, angles, angles, x.to(torch::kBFloat16)), HasSubstr("out of rotate: BFloat16"));
  EXPECT_THAT(of(x, torch::ones({2, 4}), angles, x), HasSubstr("cosine of rotate: Float [2, 4]"));
}

TEST(KernelArguments, SwigluRefusesOthers) {
  EXPECT_THAT(refusal([] { swiglu(kRows, kHalf); }), HasSubstr("up of swiglu: BFloat16 [4, 6]"));
  EXPECT_THAT(refusal([] { swiglu(kRows, torch::ones({4, 5})); }), HasSubstr("up of swiglu: Float [4, 5]"));
  EXPECT_THAT(refusal([] { swiglu_gradient(kFlipped, kRows, kRows); }), HasSubstr("dy of swiglu_gradient"));
  EXPECT_THAT(refusal([] { swiglu_gradient(kRows, kFlipped, kRows); }), HasSubstr("gate of swiglu_gradient"));
  EXPECT_THAT(refusal([] { swiglu_gradient(kRows, kRows, kFlipped); }), HasSubstr("up of swiglu_gradient"));
  EXPECT_THAT(refusal([] { swiglu_gradient(kDouble, kRows, kRows); }), HasSubstr("dy of swiglu_gradient: Double [4, 6]"));
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
  EXPECT_THAT(refusal([&] { attention_forward(flipped, k, k, *plan, 1); }), HasSubstr("q of attention: Float [3, 2, 8]"));
  EXPECT_THAT(refusal([&] { attention_forward(q, half, k, *plan, 1); }), HasSubstr("k of attention: BFloat16 [3, 1, 8]"));
  EXPECT_THAT(refusal([&] { attention_forward(q, k, half, *plan, 1); }), HasSubstr("v of attention: BFloat16 [3, 1, 8]"));
  EXPECT_THAT(refusal([&] { attention_backward(flipped, q, k, k, q, lse, *plan, 1); }), HasSubstr("dout of attention"));
  EXPECT_THAT(refusal([&] { attention_backward(q, q, k, k, flipped, lse, *plan, 1); }), HasSubstr("out of attention"));
  EXPECT_THAT(refusal([&] { attention_backward(q, q, k, k, q, lse.to(torch::kDouble), *plan, 1); }),
              HasSubstr("lse of attention: Double [2, 3]"));
}

TEST(KernelArguments, PackedProductsRefuseOthersAndPackATransposedMatrix) {
  const auto weight = torch::arange(12, torch::kFloat).view({3, 4});
  const PackedMatrix matrix(weight);
  EXPECT_THAT(refusal([&] { PackedMatrix{weight.to(torch::kDouble)}; }), HasSubstr("weight of PackedMatrix: Double [3, 4]"));
  EXPECT_THAT(refusal([&] {
                matrix.product(torch::ones({2, 4}), torch::ones({3}, torch::kDouble), {});
              }),
              HasSubstr("bias of a packed product: Double [3]"));
  EXPECT_THAT(refusal([&] {
                matrix.product(torch::ones({2, 4}), {}, torch::ones({2, 4}));
              }),
              HasSubstr("onto of a packed product: Float [2, 4]"));
  EXPECT_TRUE(PackedMatrix(weight.t()).dense().equal(weight.t()));
  EXPECT_TRUE(PackedMatrix(torch::cat({weight, weight}, 1).narrow(1, 2, 4)).dense().equal(torch::cat({weight, weight}, 1).narrow(1, 2, 4)));
}

}  // namespace
}  // namespace quiver::backend
