#include "quiver/nn/quantized_weight.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/random.h"
#include "quiver/io/gguf.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::nn {
namespace {

using testing::draw;

/// Random blocks [N, K / 32, bytes] of a type, with scales about 0.02, and their values by the reader of GGUF files.
struct Drawn {
  torch::Tensor blocks, values;

  Drawn(io::GgufType type, std::int64_t outputs, std::int64_t depth) {
    const auto [block_values, block_bytes] = *io::find_block_layout(type);
    blocks = torch::empty({outputs, depth / block_values, block_bytes}, torch::kByte);
    values = torch::empty({outputs, depth}, torch::kFloat);
    RandomStream random(static_cast<std::uint64_t>(outputs * depth), "blocks");
    const auto bytes = tensor::mutable_elements<std::uint8_t>(blocks, "blocks");
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random.below(256));
    for (std::size_t i = 0; i < bytes.size(); i += static_cast<std::size_t>(block_bytes)) {
      bytes[i + 1] = static_cast<std::uint8_t>(0x25 + 0x80 * random.below(2));
      if (type == io::GgufType::kQ4_1) bytes[i + 3] = static_cast<std::uint8_t>(0x28 + 0x80 * random.below(2));
    }
    io::dequantize(type, tensor::raw_bytes(blocks, "blocks"), tensor::mutable_elements<float>(values, "values"));
  }
};

constexpr auto kTypes = {io::GgufType::kQ8_0, io::GgufType::kQ4_0, io::GgufType::kQ4_1};

TEST(QuantizedWeight, HoldsTheValuesOfItsBlocks) {
  for (const auto type : kTypes) {
    for (const auto& [outputs, depth] : {std::pair<std::int64_t, std::int64_t>{1, 32}, {16, 64}, {45, 96}, {130, 192}}) {
      const Drawn drawn(type, outputs, depth);
      ASSERT_TRUE(backend::is_blocks(drawn.blocks));
      const QuantizedWeight weight(drawn.blocks);
      EXPECT_EQ(weight.in_features(), depth);
      EXPECT_EQ(weight.out_features(), outputs);
      EXPECT_TRUE(torch::equal(weight.dense(), drawn.values)) << io::gguf_type_name(type);
      EXPECT_TRUE(torch::equal(backend::blocks_to_dense(drawn.blocks), drawn.values));
      const auto index = torch::tensor(std::vector<std::int64_t>{outputs - 1, 0, outputs / 2, 0}, torch::kLong);
      EXPECT_TRUE(torch::equal(weight.rows(index), drawn.values.index_select(0, index)));
    }
  }
}

TEST(QuantizedWeight, MultipliesAsItsValuesDoInFloat64) {
  for (const auto type : kTypes) {
    const Drawn drawn(type, 45, 96);
    const QuantizedWeight weight(drawn.blocks);
    const auto wide = drawn.values.to(torch::kDouble);
    for (const std::int64_t rows : {0, 1, 2, 7, 16, 17, 200}) {
      const auto x = draw({rows, 96}, 1).to(torch::kFloat), bias = draw({45}, 2).to(torch::kFloat),
                 onto = draw({rows, 45}, 3).to(torch::kFloat);
      const auto expected = x.to(torch::kDouble).matmul(wide.t());
      const auto is_near = [](const torch::Tensor& found, const torch::Tensor& right) {
        return torch::allclose(found.to(torch::kDouble), right, 0, 2e-3);
      };
      EXPECT_TRUE(is_near(weight.product(x, {}, {}), expected)) << rows;
      EXPECT_TRUE(is_near(weight.product(x, bias, onto), expected + bias + onto)) << rows;
      EXPECT_TRUE(is_near(weight.product(x, {}, onto.t().contiguous().t()), expected + onto)) << rows;
      const auto dy = draw({rows, 45}, 4).to(torch::kFloat), start = draw({rows, 96}, 5).to(torch::kFloat);
      EXPECT_TRUE(is_near(weight.product_transposed(dy, {}), dy.to(torch::kDouble).matmul(wide))) << rows;
      EXPECT_TRUE(is_near(weight.product_transposed(dy, start), dy.to(torch::kDouble).matmul(wide) + start)) << rows;
    }
  }
}

/// The same bits whatever rows are beside it, on one thread and on two.
TEST(QuantizedWeight, ComputesARowAlone) {
  for (const auto type : kTypes) {
    const Drawn drawn(type, 300, 256);
    const QuantizedWeight weight(drawn.blocks);
    const auto x = draw({150, 256}, 1).to(torch::kFloat);
    const auto all = weight.product(x, {}, {});
    for (const std::int64_t row : {0, 3, 127, 128, 149}) {
      EXPECT_TRUE(torch::equal(weight.product(x.narrow(0, row, 1), {}, {}), all.narrow(0, row, 1))) << row;
    }
    const auto threads = at::get_num_threads();
    at::set_num_threads(threads == 1 ? 2 : 1);
    EXPECT_TRUE(torch::equal(weight.product(x, {}, {}), all));
    at::set_num_threads(threads);
  }
}

TEST(QuantizedWeight, RefusesWhatDoesNotFit) {
  const QuantizedWeight weight(Drawn(io::GgufType::kQ8_0, 16, 64).blocks);
  EXPECT_NE(testing::error_of([&] { weight.product(torch::zeros({2, 32}), {}, {}); }).find("expected [tokens, 64]"), std::string::npos);
  EXPECT_NE(testing::error_of([&] {
              weight.product(torch::zeros({2, 64}, torch::kBFloat16), {}, {});
            }).find("expected [tokens, 64]"),
            std::string::npos);
  EXPECT_NE(testing::error_of([&] {
              QuantizedWeight(torch::zeros({2, 3, 33}, torch::kByte));
            }).find("not rows in blocks"),
            std::string::npos);
}

}  // namespace
}  // namespace quiver::nn
