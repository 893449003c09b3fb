#include "quiver/merge/compress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/merge/mean.h"
#include "quiver/merge/test_support.h"
#include "quiver/testing/draw.h"

namespace quiver::merge {
namespace {

using ::testing::HasSubstr;

/// The first singular values of a dense matrix, put together again.
torch::Tensor truncated_svd(const torch::Tensor& dense, std::int64_t rank) {
  const auto [u, s, vh] = torch::linalg_svd(dense, false);
  return u.narrow(1, 0, rank).matmul(s.narrow(0, 0, rank).diag()).matmul(vh.narrow(0, 0, rank));
}

TEST(Compressed, IsTheTruncatedSvdOfTheUpdate) {
  const auto adapters = std::vector{in_double(random_adapter("a", 2, 4, 1)), in_double(random_adapter("b", 3, 5, 2))};
  const auto sum = weighted_products(adapters, std::vector{0.8, -1.3});
  for (const auto& [path, pair] : sum.pairs) {
    SCOPED_TRACE(path);
    for (std::int64_t rank = 1; rank <= 4; ++rank) {
      SCOPED_TRACE(rank);
      const auto small = compressed(pair, rank);
      EXPECT_EQ(small.rank(), rank);
      EXPECT_DOUBLE_EQ(small.scaling(), 1);
      EXPECT_LT(relative_difference(small.delta(), truncated_svd(pair.delta(), rank)), 1e-12) << path << " rank " << rank;
    }
  }
}

TEST(Compressed, IsExactAtTheRankOfTheUpdate) {
  const auto a = random_adapter("a", 2, 4, 1);
  const auto thrice = weighted_products(std::vector{a, a, a}, std::vector{0.5, 0.25, 0.25});  // rank 6 in name
  const auto small = compressed(thrice, 2);
  EXPECT_EQ(small.name, thrice.name);
  EXPECT_EQ(small.options.rank, 2);
  EXPECT_DOUBLE_EQ(small.options.alpha, 2);
  EXPECT_LT(update_difference(small, a), 1e-6);
}

TEST(Compressed, HasOrthonormalRowsOfFixedSign) {
  const auto pair = in_double(random_adapter("a", 3, 4, 1)).pairs.at(kPath);
  const auto a = compressed(pair, 3).lora_a();
  EXPECT_TRUE(torch::allclose(a.matmul(a.t()), torch::eye(3, torch::kDouble), 0, 1e-12));
  EXPECT_TRUE((a.amax(1) >= -a.amin(1)).all().item<bool>());
  const LoraPair turned(-pair.lora_a(), -pair.lora_b(), 4);
  EXPECT_TRUE(torch::allclose(compressed(turned, 3).lora_a(), a, 0, 1e-12));
}

TEST(Compressed, NeverHasMoreRankThanTheShapesAllow) {
  const LoraPair pair(testing::draw({9, 6}, 1), testing::draw({4, 9}, 2), 9);
  const auto small = compressed(pair, 100);
  EXPECT_EQ(small.rank(), 4);
  EXPECT_LT(relative_difference(small.delta(), update_of(pair)), 1e-6);
  const LoraPair nothing(torch::ones({2, 6}), torch::zeros({4, 2}), 2);
  EXPECT_EQ(compressed(nothing, 1).delta().abs().max().item<float>(), 0);
}

TEST(CompressedProducts, AreTheWeightedProductsCompressed) {
  const auto adapters = std::vector{in_double(random_adapter("a", 2, 4, 1)), in_double(random_adapter("b", 3, 5, 2))};
  const std::vector weights = {0.8, -1.3};
  EXPECT_LT(update_difference(compressed_products(adapters, weights, 3), compressed(weighted_products(adapters, weights), 3)), 1e-12);
  EXPECT_LT(update_difference(compressed_products(adapters, weights, 5), weighted_products(adapters, weights)), 1e-12);
}

TEST(Compressed, RefusesWhatHasNoSvd) {
  const auto pair = random_adapter("a").pairs.at(kPath);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { compressed(pair, 0); }), HasSubstr("to rank 0: the rank must be at least 1"));
  const LoraPair broken(pair.lora_a() * std::nan(""), pair.lora_b(), 4);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { compressed(broken, 1); }), HasSubstr("NaN"));
  const LoraPair dora(pair.lora_a(), pair.lora_b(), 4, false, torch::ones({8}));
  EXPECT_THAT(message_of(ErrorKind::kUnsupported, [&] { compressed(dora, 1); }), HasSubstr("DoRA"));
}

}  // namespace
}  // namespace quiver::merge
