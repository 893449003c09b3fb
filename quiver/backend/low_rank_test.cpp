#include "quiver/backend/low_rank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::backend {
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

TEST(LowRank, RefusesArgumentsThatItsKernelsWouldMisread) {
  using ::testing::HasSubstr;
  const auto refusal = [](const std::function<void()>& action) { return testing::message_of(ErrorKind::kInternal, action); };
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

}  // namespace
}  // namespace quiver::backend
