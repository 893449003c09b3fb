// The small products of a LoRA and products by a packed matrix, against their definitions in float64.
#include <algorithm>

#include "quiver/backend/cpu/low_rank_isa.h"
#include "quiver/backend/cpu/packed_product_isa.h"
#include "tests/kernels/support.h"

namespace quiver::kernel_test {
namespace {

template <typename T>
class LowRank : public ::testing::Test {};
using Elements = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(LowRank, Elements);

/// sum_k left(k) right(k)
template <typename L, typename R>
double dot(std::int64_t count, L left, R right) {
  double sum = 0;
  for (std::int64_t k = 0; k < count; ++k) sum += left(k) * right(k);
  return sum;
}

TYPED_TEST(LowRank, ShrinkExpandAndOuterAreTheirDefinitions) {
  using T = TypeParam;
  namespace kernel = backend::kernel;
  for_rounds("low_rank", [](Draw& draw) {
    const auto rows = draw.coin() ? draw.size(0, 9) : draw.size(0, 70), dim = draw.width(), rank = draw.size(1, 20);
    const auto x = draw.values<T>(rows * dim), onto = draw.values<T>(rows * dim);
    const auto factor = draw.values<float>(rank * dim), z = draw.values<float>(rows * rank);
    const bool adds = draw.coin();
    Expected shrunk, expanded, outer;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t k = 0; k < rank; ++k) {
        shrunk.push_back(dot(
            dim, [&](auto d) { return x.at(t * dim + d); }, [&](auto d) { return factor.at(k * dim + d); }));
      }
      for (std::int64_t d = 0; d < dim; ++d) {
        const double update = dot(
            rank, [&](auto k) { return z.at(t * rank + k); }, [&](auto k) { return factor.at(k * dim + d); });
        expanded.push_back((adds ? onto.at(t * dim + d) : 0) + update);
      }
    }
    for (std::int64_t k = 0; k < rank; ++k) {
      for (std::int64_t d = 0; d < dim; ++d) {
        outer.push_back(dot(
            rows, [&](auto t) { return z.at(t * rank + k); }, [&](auto t) { return x.at(t * dim + d); }));
      }
    }
    for (const auto isa : instruction_sets()) {
      auto small = draw.untouched<float>(rows * rank), sums = draw.untouched<float>(rank * dim);
      auto y = draw.untouched<T>(rows * dim), in_place = draw.untouched<T>(rows * dim);
      QUIVER_ON_ISA(isa, kernel, shrink<T>, rows, dim, rank, x.data(), factor.data(), small.data());
      expect_near(small, shrunk, {1e-5, 3e-6, 2e-5}, "shrink", isa);
      QUIVER_ON_ISA(isa, kernel, expand<T>, rows, dim, rank, z.data(), factor.data(), adds ? onto.data() : nullptr, y.data());
      expect_near(y, expanded, {kRounding<T>.relative, 3e-6, 2e-5}, "expand", isa);
      QUIVER_ON_ISA(isa, kernel, outer<T>, rows, dim, rank, z.data(), x.data(), sums.data());
      expect_near(sums, outer, {1e-5, 3e-6, 2e-5}, "outer", isa);
      if (!adds) continue;
      std::ranges::copy(onto.all(), in_place.data());
      QUIVER_ON_ISA(isa, kernel, expand<T>, rows, dim, rank, z.data(), factor.data(), in_place.data(), in_place.data());
      expect_near(in_place, expanded, {kRounding<T>.relative, 3e-6, 2e-5}, "expand in place", isa);
    }
  });
}

TEST(PackedProduct, IsItsDefinition) {
  namespace kernel = backend::kernel;
  for_rounds("packed_product", [](Draw& draw) {
    const auto rows = draw.coin() ? draw.size(0, 9) : draw.size(0, 140);
    const std::int64_t depths[] = {0, draw.size(1, 40), draw.size(1, 40), draw.size(760, 800)};
    const auto depth = depths[draw.size(0, 3)], outputs = draw.size(1, 130);
    const bool is_transposed = draw.coin(), adds = draw.coin(), has_bias = draw.coin();
    const auto row_stride = is_transposed ? 1 : depth, column_stride = is_transposed ? outputs : 1;
    const auto w = draw.values<float>(outputs * depth), x = draw.values<float>(rows * depth);
    const auto bias = draw.values<float>(outputs), onto = draw.values<float>(rows * outputs);
    Expected expected;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t n = 0; n < outputs; ++n) {
        const double sum = dot(
            depth, [&](auto k) { return x.at(i * depth + k); }, [&](auto k) { return w.at(n * row_stride + k * column_stride); });
        expected.push_back(sum + (has_bias ? bias.at(n) : 0) + (adds ? onto.at(i * outputs + n) : 0));
      }
    }
    for (const auto isa : instruction_sets()) {
      std::int64_t width = 0;
      QUIVER_ON_ISA(isa, width = kernel, panel_width);
      const auto num_panels = (outputs + width - 1) / width, split = draw.size(0, num_panels);
      auto panels = draw.untouched<float>(num_panels * depth * width), y = draw.untouched<float>(rows * outputs);
      QUIVER_ON_ISA(isa, kernel, pack_panels, 0, num_panels, outputs, depth, w.data(), row_stride, column_stride, panels.data());
      const kernel::PackedProduct product{.num_rows = rows,
                                          .depth = depth,
                                          .num_outputs = outputs,
                                          .x = x.data(),
                                          .panels = panels.data(),
                                          .bias = has_bias ? bias.data() : nullptr,
                                          .onto = adds ? onto.data() : nullptr,
                                          .y = y.data()};
      QUIVER_ON_ISA(isa, kernel, packed_product, 0, split, product);
      QUIVER_ON_ISA(isa, kernel, packed_product, split, num_panels, product);
      expect_near(y, expected, {1e-5, 3e-6, 2e-5}, "packed_product", isa);
    }
  });
}

}  // namespace
}  // namespace quiver::kernel_test
