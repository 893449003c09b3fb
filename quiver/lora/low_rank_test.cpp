#include "quiver/lora/low_rank.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/testing/draw.h"

namespace quiver::lora {
namespace {

using testing::draw;

/// Against products in float64, for sizes on and off every block's border.
TEST(LowRank, EqualsItsDefinition) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) {
    SCOPED_TRACE(dtype);
    const auto wide = dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
    const double rounding = dtype == torch::kBFloat16 ? 4e-3 : 1e-5;
    for (const std::int64_t rows : {0, 1, 4, 7, 33}) {
      SCOPED_TRACE(rows);
      for (const std::int64_t dim : {1, 15, 16, 40, 96}) {
        SCOPED_TRACE(dim);
        for (const std::int64_t rank : {1, 3, 4, 8, 13}) {
          SCOPED_TRACE(rank);
          const auto x = draw({rows, dim}, 1).to(dtype), onto = draw({rows, dim}, 2).to(dtype);
          const auto factor = draw({rank, dim}, 3).to(wide), z = draw({rows, rank}, 4).to(wide);
          const auto d = [](const torch::Tensor& t) { return t.to(torch::kDouble); };
          const auto at = ::testing::Message() << rows << " rows, " << dim << " wide, rank " << rank;
          EXPECT_TRUE(torch::allclose(d(shrink(x, factor)), d(x).mm(d(factor).t()), 1e-5, 1e-4)) << at;
          EXPECT_TRUE(torch::allclose(d(expand(z, factor, onto, dtype)), d(onto) + d(z).mm(d(factor)), rounding, 1e-4)) << at;
          EXPECT_TRUE(torch::allclose(d(expand(z, factor, {}, dtype)), d(z).mm(d(factor)), rounding, 1e-4)) << at;
          EXPECT_TRUE(torch::allclose(d(outer_product(z, x)), d(z).t().mm(d(x)), 1e-5, 1e-4)) << at;
          EXPECT_EQ(expand(z, factor, onto, dtype).scalar_type(), dtype);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quiver::lora
