#include "quiver/backend/frozen_matrix.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/cpu/packed_matrix.h"
#include "quiver/backend/test_support.h"
#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::backend {
namespace {

using testing::draw;

torch::Tensor wide(const torch::Tensor& t) { return t.to(torch::kDouble); }

/// In the panels of every instruction set of this CPU.
std::vector<FrozenMatrix> packed_by_all(const torch::Tensor& weight) {
  std::vector<FrozenMatrix> matrices;
  for (const auto isa : {tensor::CpuIsa::kV2, tensor::CpuIsa::kV3, tensor::CpuIsa::kV4, tensor::CpuIsa::kV4Bf16}) {
    if (tensor::has_cpu_isa(isa)) matrices.emplace_back(weight, std::make_shared<cpu::PackedMatrix>(weight, isa));
  }
  return matrices;
}

/// Depths beyond a block, outputs that are no whole panels, rows that are no whole tiles, beyond a block of rows.
TEST(PackedMatrix, EqualsTheProductInFloat64) {
  for (const auto& [num_outputs, depth] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {24, 16}, {50, 33}, {97, 800}, {48, 1537}}) {
    SCOPED_TRACE(format("{} x {}", num_outputs, depth));
    const auto weight = draw({num_outputs, depth}, 1).to(torch::kFloat), bias = draw({num_outputs}, 2).to(torch::kFloat);
    for (const auto& matrix : packed_by_all(weight)) {
      EXPECT_TRUE(matrix.dense().equal(weight));
      for (const std::int64_t rows : {0, 1, 2, 3, 7, 13, 130, 301}) {
        SCOPED_TRACE(rows);
        const auto x = draw({rows, depth}, 3).to(torch::kFloat), onto = draw({rows, num_outputs}, 4).to(torch::kFloat);
        const auto expected = wide(x).matmul(wide(weight).t());
        const double tolerance = 1e-6 * static_cast<double>(depth);
        EXPECT_LE((wide(matrix.product(x, {}, {})) - expected).abs().sum().item<double>(),
                  tolerance * static_cast<double>(rows * num_outputs));
        EXPECT_TRUE(torch::allclose(wide(matrix.product(x, bias, {})), expected + wide(bias), 0, tolerance)) << num_outputs << " " << rows;
        EXPECT_TRUE(torch::allclose(wide(matrix.product(x, bias, onto)), expected + wide(bias) + wide(onto), 0, tolerance)) << rows;
        EXPECT_TRUE(torch::allclose(wide(matrix.product(x, {}, onto)), expected + wide(onto), 0, tolerance)) << rows;
      }
    }
  }
}

TEST(PackedMatrix, IsPackedFromAnyStrides) {
  const auto weight = draw({60, 70}, 1).to(torch::kFloat);
  const auto beside = torch::cat({weight, weight}, 1).narrow(1, 2, 4);
  for (const auto& strided : {weight.t(), weight.slice(1, 0, 70, 2), beside}) {
    for (const auto& matrix : packed_by_all(strided)) EXPECT_TRUE(matrix.dense().equal(strided));
  }
}

/// Bit for bit: alone, among others, and within a parallel region.
TEST(PackedMatrix, ARowDoesNotDependOnTheOthers) {
  const auto weight = draw({100, 900}, 1).to(torch::kFloat), x = draw({203, 900}, 2).to(torch::kFloat);
  for (const auto& matrix : packed_by_all(weight)) {
    const auto all = matrix.product(x, {}, {});
    for (const std::int64_t row : {0, 101, 127, 128, 202}) {
      EXPECT_TRUE(matrix.product(x.narrow(0, row, 1), {}, {}).equal(all.narrow(0, row, 1))) << row;
    }
    std::vector<torch::Tensor> parts(2);
    at::parallel_for(0, 2, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) parts[static_cast<std::size_t>(i)] = matrix.product(x.narrow(0, i * 100, 100), {}, {});
    });
    EXPECT_TRUE(torch::cat(parts).equal(all.narrow(0, 0, 200)));
  }
}

TEST(FrozenMatrix, RefusesOtherInputs) {
  const FrozenMatrix matrix(torch::ones({4, 3}));
  EXPECT_ERROR(matrix.product(torch::ones({2, 4})), ErrorKind::kMismatch, "a product of Float [2, 4] by a matrix of 3 to 4 features");
  EXPECT_ERROR(matrix.product(torch::ones({2, 3}, torch::kDouble)), ErrorKind::kMismatch, "a product of Double [2, 3] by a matrix");
}

TEST(FrozenMatrix, KeepsItsValuesInEveryLayout) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const auto weight = draw({48, 40}, 1).to(dtype), x = draw({5, 40}, 2).to(dtype), dy = draw({5, 48}, 3).to(dtype),
               onto = draw({5, 48}, 4).to(dtype);
    const FrozenMatrix matrix(weight);
    const double tolerance = dtype == torch::kBFloat16 ? 5e-2 : 1e-4;
    EXPECT_TRUE(matrix.dense().equal(weight));
    EXPECT_TRUE(matrix.transposed().dense().equal(weight.t()));
    EXPECT_TRUE(torch::allclose(wide(matrix.product(x, {}, onto)), wide(x).matmul(wide(weight).t()) + wide(onto), tolerance, tolerance));
    EXPECT_TRUE(torch::allclose(wide(matrix.transposed().product(dy)), wide(dy).matmul(wide(weight)), tolerance, tolerance));
  }
}

/// Products by a laid out W [N, K] and by W^T: [T, K, N].
Description frozen_product_op() {
  return {.name = "frozen product",
          .shapes = {{0, 16, 24}, {1, 1, 1}, {5, 40, 48}, {13, 33, 50}, {130, 800, 97}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[2], s[1]}, 1)}, {draw({s[0], s[1]}, 2)}, {draw({s[2]}, 3)}, {draw({s[0], s[2]}, 4)}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto layout = column.lay_out(in[0]), transposed = column.lay_out(in[0].t());
                return Tensors{layout->product(in[1], {}, {}),
                               layout->product(in[1], in[2], {}),
                               layout->product(in[1], {}, in[3]),
                               layout->product(in[1], in[2], in[3]),
                               transposed->product(in[3], {}, {}),
                               layout->dense(),
                               transposed->dense()};
              },
          .tolerance = rounding({1e-4, 1e-3}, {5e-2, 5e-2})};
}

INSTANTIATE_TEST_SUITE_P(FrozenMatrix, Table, ::testing::Values(frozen_product_op()), name_of);

}  // namespace
}  // namespace quiver::backend
