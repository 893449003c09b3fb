#include "quiver/tensor/finite.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <limits>

namespace quiver::tensor {
namespace {

class AllFinite : public testing::TestWithParam<torch::Dtype> {};

TEST_P(AllFinite, IsThatOfLibtorchForEveryPlaceOfANumber) {
  const double largest = GetParam() == torch::kHalf ? 65504 : 0x1.fep127;  // the largest of float16; of bfloat16
  for (const std::int64_t size : {0, 1, 5, 4096, 4097, 9000}) {
    const auto values = torch::full({size}, largest, torch::kDouble).to(GetParam());
    EXPECT_TRUE(all_finite(values)) << size;
    EXPECT_TRUE(all_finite(-values)) << size;
    EXPECT_TRUE(all_finite(values * 0)) << size;
    for (const std::int64_t place : {std::int64_t{0}, size / 2, size - 1}) {
      if (size == 0) continue;
      for (const auto wrong :
           {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
        auto other = values.clone();
        other[place] = wrong;
        EXPECT_FALSE(all_finite(other)) << place << " of " << size;
        EXPECT_EQ(all_finite(other), other.isfinite().all().item<bool>());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, AllFinite, testing::Values(torch::kFloat, torch::kDouble, torch::kBFloat16, torch::kHalf));

TEST(AllFinite, OfOtherLayoutsAndDtypesToo) {
  auto values = torch::zeros({6, 4});
  values[5][3] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(all_finite(values.t()));
  EXPECT_TRUE(all_finite(values.narrow(1, 0, 3)));  // rows with a gap, in which the infinity stands
  EXPECT_TRUE(all_finite(torch::arange(3)));
}

}  // namespace
}  // namespace quiver::tensor
