#include "quiver/backend/low_rank.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <array>
#include <vector>

#include "quiver/backend/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::backend {
namespace {

/// x [T, d] factor [r, d]^T; its gradients are the two other small products.
Description shrink_op() {
  std::vector<Shape> shapes;
  for (const std::int64_t rows : {0, 1, 7, 33}) {
    for (const std::int64_t dim : {1, 15, 16, 40, 96}) {
      for (const std::int64_t rank : {1, 3, 4, 8, 13}) shapes.push_back({rows, dim, rank});
    }
  }
  return {.name = "shrink",
          .shapes = shapes,
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[0], s[1]}, 1)}, {draw({s[2], s[1]}, 3), Kind::kWide}};
              },
          .forward = [](const Ops& column, const Tensors& in, const Shape&) { return Tensors{column.shrink(in[0], in[1])}; },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dz, const Shape&) {
                return Tensors{column.expand(dz, in[1], {}, in[0].scalar_type()), column.outer_product(dz, in[0])};
              },
          .tolerance = kProducts};
}

/// onto [T, d] + z [T, r] factor [r, d]
Description expand_op() {
  return {.name = "expand",
          .shapes = shrink_op().shapes,
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{
                    {draw({s[0], s[2]}, 4), Kind::kWide}, {draw({s[2], s[1]}, 3), Kind::kWide}, {draw({s[0], s[1]}, 2)}};
              },
          .forward = [](const Ops& column, const Tensors& in,
                        const Shape&) { return Tensors{column.expand(in[0], in[1], in[2], in[2].scalar_type())}; },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dy, const Shape&) {
                return Tensors{column.shrink(dy, in[1]), column.outer_product(in[0], dy)};
              },
          .tolerance = kProducts};
}

TEST(AddLowRank, AddsWhatShrinkAndExpandGive) {
  for (const auto& [rows, d_in, rank, d_out] :
       std::vector<std::array<std::int64_t, 4>>{{1, 64, 4, 48}, {3, 33, 1, 17}, {37, 40, 9, 64}, {0, 8, 2, 8}}) {
    const auto x = draw({rows, d_in}, 1), a = draw({rank, d_in}, 2), b = draw({rank, d_out}, 3), y = draw({rows, d_out}, 4);
    const auto expected = expand(shrink(x, a), b, y, torch::kFloat);
    const auto found = y.clone();
    add_low_rank(x, 0, rows, a, b, found);
    EXPECT_TRUE(torch::equal(found, expected)) << rows;
    if (rows < 3) continue;
    auto part = y.clone();
    add_low_rank(x, 1, 3, a, b, part);
    EXPECT_TRUE(torch::equal(part.narrow(0, 1, 2), expected.narrow(0, 1, 2)));
    part.narrow(0, 1, 2).copy_(y.narrow(0, 1, 2));
    EXPECT_TRUE(torch::equal(part, y)) << "other rows";
  }
  EXPECT_ERROR(add_low_rank(draw({2, 8}, 1), 1, 3, draw({2, 8}, 2), draw({2, 8}, 3), draw({2, 8}, 4)), ErrorKind::kInternal,
               "rows 1 to 3 of 2");
  EXPECT_ERROR(add_low_rank(draw({2, 8}, 1), 0, 2, draw({2, 9}, 2), draw({2, 8}, 3), draw({2, 8}, 4)), ErrorKind::kInternal,
               "a of add_low_rank");
}

INSTANTIATE_TEST_SUITE_P(LowRank, Table, ::testing::Values(shrink_op(), expand_op()), name_of);

}  // namespace
}  // namespace quiver::backend
