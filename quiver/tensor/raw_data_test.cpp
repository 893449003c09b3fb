#include "quiver/tensor/raw_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cstdint>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::tensor {
namespace {

using quiver::testing::message_of;

struct HalfBits {
  std::uint16_t bits;
};

TEST(RawData, GivesTheElementsOfAContiguousTensor) {
  const auto t = torch::tensor({{1.0f, 2.0f, 3.0f}, {4.0f, 5.0f, 6.0f}});
  EXPECT_EQ(raw_data<float>(t, "t", {2, 3})[4], 5);
  mutable_raw_data<float>(t, "t", {2, 3})[4] = 7;
  EXPECT_EQ(t[1][1].item<float>(), 7);
  EXPECT_EQ(elements<float>(t, "t").size(), 6u);
  mutable_elements<float>(t, "t")[0] = 9;
  EXPECT_EQ(t[0][0].item<float>(), 9);
  EXPECT_EQ(raw_bytes(t, "t").size(), 24u);
  EXPECT_EQ(raw_data<HalfBits>(torch::ones({1}, torch::kBFloat16), "one", {1})->bits, 0x3f80);
  EXPECT_NE(raw_data<float>(t.narrow(0, 1, 1), "a row", {1, 3}), nullptr);
}

TEST(RawData, RefusesAnotherDtypeShapeLayoutOrNoTensorAtAll) {
  const auto t = torch::zeros({3, 2});
  const auto refusal = [](const std::function<void()>& action) { return message_of(ErrorKind::kInternal, action); };
  EXPECT_EQ(refusal([&] {
              raw_data<double>(t, "x of rms_norm", {3, 2});
            }),
            "x of rms_norm: Float [3, 2] with strides [2, 1] on cpu; expected a contiguous Double [3, 2] on cpu");
  EXPECT_EQ(refusal([&] {
              raw_data<float>(t, "x", {2, 3});
            }),
            "x: Float [3, 2] with strides [2, 1] on cpu; expected a contiguous Float [2, 3] on cpu");
  EXPECT_EQ(refusal([&] {
              mutable_raw_data<float>(t.t(), "x", {2, 3});
            }),
            "x: Float [2, 3] with strides [1, 2] on cpu; expected a contiguous Float [2, 3] on cpu");
  EXPECT_EQ(refusal([&] {
              raw_data<HalfBits>(t, "x", {3, 2});
            }),
            "x: Float [3, 2] with strides [2, 1] on cpu; expected a contiguous BFloat16 [3, 2] on cpu");
  EXPECT_EQ(refusal([&] { elements<float>(t.t(), "x"); }),
            "x: Float [2, 3] with strides [1, 2] on cpu; expected a contiguous Float on cpu");
  EXPECT_EQ(refusal([&] { mutable_elements<std::int64_t>(t, "x"); }),
            "x: Float [3, 2] with strides [2, 1] on cpu; expected a contiguous Long on cpu");
  EXPECT_EQ(refusal([&] { raw_bytes(t.t(), "x"); }), "x: Float [2, 3] with strides [1, 2] on cpu; expected a contiguous Float on cpu");
  EXPECT_EQ(refusal([&] { elements<float>(torch::Tensor(), "x"); }), "x: none; expected a contiguous Float on cpu");
}

}  // namespace
}  // namespace quiver::tensor
