// Products by quantised panels: the same bits from every instruction set as from scalar arithmetic, and close to float64.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "quiver/backend/cpu/quantized_product_isa.h"
#include "quiver/tensor/cpu.h"
#include "tests/kernels/support.h"

namespace quiver::kernel_test {
namespace {

namespace kernel = backend::kernel;
using kernel::BlockFormat;
using kernel::kBlockWidth;
using kernel::kPanelRows;

constexpr std::array kFormats = {BlockFormat::kQ8_0, BlockFormat::kQ4_0, BlockFormat::kQ4_1};

float half_value(std::uint16_t bits) {
  const double mantissa = bits & 1023, sign = bits >> 15 != 0 ? -1 : 1;
  const int exponent = bits >> 10 & 31;
  if (exponent == 31) return static_cast<float>(sign) * (mantissa != 0 ? std::numeric_limits<float>::quiet_NaN() : INFINITY);
  return static_cast<float>(sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25)));
}

/// A weight matrix: stored integers u [N, K], offset z, scales and minima [N, K / 32] in float16.
struct Weights {
  BlockFormat format;
  std::int64_t outputs, depth;
  std::vector<int> stored;
  std::vector<std::uint16_t> scales, minima;

  std::int64_t num_blocks() const { return depth / kBlockWidth; }
  int offset() const { return format == BlockFormat::kQ8_0 ? 128 : format == BlockFormat::kQ4_0 ? 8 : 0; }
  int at(std::int64_t n, std::int64_t k) const { return stored[static_cast<std::size_t>(n * depth + k)]; }
  float scale(std::int64_t n, std::int64_t b) const { return half_value(scales[static_cast<std::size_t>(n * num_blocks() + b)]); }
  float minimum(std::int64_t n, std::int64_t b) const {
    return format == BlockFormat::kQ4_1 ? half_value(minima[static_cast<std::size_t>(n * num_blocks() + b)]) : 0;
  }
  double value(std::int64_t n, std::int64_t k) const {
    return double{scale(n, k / kBlockWidth)} * (at(n, k) - offset()) + minimum(n, k / kBlockWidth);
  }
};

/// Random stored values; now and then only the extreme ones, and scales that are subnormal or zero.
Weights draw_weights(Draw& draw, BlockFormat format, std::int64_t outputs, std::int64_t depth) {
  Weights w{format, outputs, depth, {}, {}, {}};
  const int most = format == BlockFormat::kQ8_0 ? 255 : 15;
  const bool is_extreme = draw.size(0, 3) == 0;
  for (std::int64_t i = 0; i < outputs * depth; ++i) {
    w.stored.push_back(static_cast<int>(is_extreme ? draw.size(0, 1) * most : draw.size(0, most)));
  }
  const auto half = [&] {
    const auto exponent = draw.size(0, 7) == 0 ? 0 : draw.size(5, 12), sign = draw.size(0, 1);
    return static_cast<std::uint16_t>(sign << 15 | exponent << 10 | draw.size(0, 1023));
  };
  for (std::int64_t i = 0; i < outputs * w.num_blocks(); ++i) {
    w.scales.push_back(half());
    w.minima.push_back(half());
  }
  return w;
}

/// The layout of quantized_product_isa.h, byte by byte.
Exact<std::uint8_t> packed(const Weights& w) {
  const auto bytes = kernel::panel_block_bytes(w.format), num_panels = (w.outputs + kPanelRows - 1) / kPanelRows;
  Exact<std::uint8_t> panels(num_panels * w.num_blocks() * bytes);
  std::ranges::fill(panels.all(), std::uint8_t{0});
  constexpr int kByteOf[] = {0, 2, 1, 3};
  const bool is_byte = w.format == BlockFormat::kQ8_0;
  for (std::int64_t n = 0; n < w.outputs; ++n) {
    for (std::int64_t b = 0; b < w.num_blocks(); ++b) {
      auto* block = panels.data() + (n / kPanelRows * w.num_blocks() + b) * bytes;
      const auto r = n % kPanelRows;
      for (int k = 0; k < kBlockWidth; ++k) {
        const int u = w.at(n, b * kBlockWidth + k);
        auto& byte = block[64 * (k / (is_byte ? 4 : 8)) + 4 * r + kByteOf[k % 4]];
        byte = static_cast<std::uint8_t>(is_byte ? u : byte | (k % 8 >= 4 ? u << 4 : u));
      }
      const auto at = static_cast<std::size_t>(n * w.num_blocks() + b);
      std::memcpy(block + (is_byte ? 512 : 256) + 2 * r, &w.scales[at], 2);
      if (w.format == BlockFormat::kQ4_1) std::memcpy(block + 288 + 2 * r, &w.minima[at], 2);
    }
  }
  return panels;
}

struct Activations {
  std::vector<std::int16_t> values;
  std::vector<float> scales;
  std::vector<std::int32_t> sums;

  explicit Activations(std::int64_t rows, std::int64_t depth)
      : values(static_cast<std::size_t>(rows * depth)), scales(static_cast<std::size_t>(rows * depth / kBlockWidth)), sums(scales.size()) {}
  kernel::QuantizedRows rows() { return {values.data(), scales.data(), sums.data()}; }
};

/// The two functions of an instruction set.
struct Kernels {
  std::string name;
  bool in_tiles;
  std::function<void(std::int64_t end, std::int64_t depth, const float* x, const kernel::QuantizedRows& rows)> quantize;
  std::function<void(std::int64_t begin, std::int64_t end, const kernel::QuantizedProduct& product)> multiply;
};

/// Of all instruction sets that this CPU has, and AMX's if it has them.
std::vector<Kernels> all_kernels() {
  std::vector<Kernels> all;
  for (const auto isa : instruction_sets()) {
    all.push_back({tensor::cpu_isa_name(isa), false,
                   [isa](std::int64_t end, std::int64_t depth, const float* x, const kernel::QuantizedRows& rows) {
                     QUIVER_ON_ISA(isa, kernel, quantize_rows, 0, end, depth, x, rows);
                   },
                   [isa](std::int64_t begin, std::int64_t end, const kernel::QuantizedProduct& product) {
                     QUIVER_ON_ISA(isa, kernel, quantized_product, begin, end, product);
                   }});
  }
  if (tensor::has_amx()) {
    all.push_back({"AMX", true,
                   [](std::int64_t end, std::int64_t depth, const float* x, const kernel::QuantizedRows& rows) {
                     for (auto row = end; row-- > 0;) kernel::amx::quantize_rows(row, row + 1, depth, x, rows);  // rows in any order
                   },
                   kernel::amx::quantized_product});
  }
  return all;
}

/// The definition of quantize_rows.
Activations quantized(const Exact<float>& x, std::int64_t rows, std::int64_t depth) {
  Activations result(rows, depth);
  for (std::size_t b = 0; b < result.scales.size(); ++b) {
    const auto* block = x.data() + b * kBlockWidth;
    float most = 0;
    bool is_finite = true;
    for (int k = 0; k < kBlockWidth; ++k) {
      is_finite = is_finite && std::isfinite(block[k]);
      most = std::max(most, std::fabs(block[k]));
    }
    if (!is_finite) result.scales[b] = std::numeric_limits<float>::quiet_NaN();
    if (!is_finite || most < kernel::kSmallestActivation) continue;
    result.scales[b] = most / kernel::kLargestActivation;
    for (int k = 0; k < kBlockWidth; ++k) {
      const auto q = std::lrint(block[k] * (kernel::kLargestActivation / most));
      result.values[b * kBlockWidth + static_cast<std::size_t>(k)] = static_cast<std::int16_t>(q);
      result.sums[b] += static_cast<std::int32_t>(q);
    }
  }
  return result;
}

/// The definition of one result without bias and onto: integer sums, and one rounding for each term.
float product(const Weights& w, const Activations& x, std::int64_t row, std::int64_t n) {
  float total = 0;
  for (std::int64_t b = 0; b < w.num_blocks(); ++b) {
    std::int64_t sum = 0;
    const auto at = static_cast<std::size_t>(row * w.num_blocks() + b);
    for (int k = 0; k < kBlockWidth; ++k) {
      const auto column = b * kBlockWidth + k;
      sum += static_cast<std::int64_t>(w.at(n, column) - w.offset()) * x.values[static_cast<std::size_t>(row * w.depth + column)];
    }
    EXPECT_EQ(sum, static_cast<std::int32_t>(sum)) << "a block's sum must fit into 32 bits";
    total = std::fma(static_cast<float>(sum), w.scale(n, b) * x.scales[at], total);
    if (w.format == BlockFormat::kQ4_1) total = std::fma(static_cast<float>(x.sums[at]), w.minimum(n, b) * x.scales[at], total);
  }
  return total;
}

bool same_bits(float a, float b) { return (a != a && b != b) || std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

struct Case {
  std::int64_t rows, outputs, depth;
  bool has_bias, adds;
};

/// All instruction sets against the scalar definition, to the bit.
void compare(Draw& draw, const Weights& w, const Exact<float>& x, const Case& c) {
  const auto panels = packed(w);
  const auto bias = draw.values<float>(c.outputs), onto = draw.values<float>(c.rows * c.outputs);
  const auto expected_x = quantized(x, c.rows, c.depth);
  Expected expected;
  std::vector<float> exact;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t n = 0; n < c.outputs; ++n) {
      float y = product(w, expected_x, i, n);
      if (c.has_bias) y += bias.data()[n];
      if (c.adds) y += onto.data()[i * c.outputs + n];
      exact.push_back(y);
      double sum = (c.has_bias ? bias.at(n) : 0) + (c.adds ? onto.at(i * c.outputs + n) : 0);
      for (std::int64_t k = 0; k < c.depth; ++k) sum += w.value(n, k) * x.at(i * c.depth + k);
      expected.push_back(sum);
    }
  }
  const auto num_panels = (c.outputs + kPanelRows - 1) / kPanelRows, split = draw.size(0, num_panels);
  for (const auto& kernels : all_kernels()) {
    Activations own(c.rows, c.depth);
    auto rows = own.rows();
    if (kernels.in_tiles) rows.num_in_tiles = c.rows;
    kernels.quantize(c.rows, c.depth, x.data(), rows);
    if (!kernels.in_tiles) {
      ASSERT_EQ(own.values, expected_x.values) << kernels.name;
      ASSERT_EQ(own.sums, expected_x.sums) << kernels.name;
      ASSERT_TRUE(std::ranges::equal(own.scales, expected_x.scales, same_bits)) << kernels.name;
    }
    auto y = draw.untouched<float>(c.rows * c.outputs);
    const kernel::QuantizedProduct product{.format = w.format,
                                           .num_rows = c.rows,
                                           .depth = c.depth,
                                           .num_outputs = c.outputs,
                                           .x = rows,
                                           .panels = panels.data(),
                                           .bias = c.has_bias ? bias.data() : nullptr,
                                           .onto = c.adds ? onto.data() : nullptr,
                                           .y = y.data(),
                                           .onto_stride = c.outputs,
                                           .y_stride = c.outputs};
    kernels.multiply(0, split, product);
    kernels.multiply(split, num_panels, product);
    ASSERT_TRUE(std::ranges::equal(y.all(), exact, same_bits))
        << kernels.name << ": " << c.rows << " rows, " << c.outputs << " outputs, depth " << c.depth;
    expect_near(y, expected, {1e-4, 3e-4, 3e-4}, "quantized_product", tensor::cpu_isa());
  }
}

TEST(QuantizedProduct, HasTheBitsOfItsDefinitionAndIsCloseToFloat64) {
  for_rounds("quantized_product", [](Draw& draw) {
    const Case c{draw.coin() ? draw.size(0, 17) : draw.size(1, 4), draw.size(1, 70), 32 * draw.size(0, 5), draw.coin(), draw.coin()};
    for (const auto format : kFormats) {
      compare(draw, draw_weights(draw, format, c.outputs, c.depth), draw.values<float>(c.rows * c.depth), c);
    }
  });
}

TEST(QuantizedProduct, KeepsItsBitsForManyRows) {
  Draw draw("quantized_product_many_rows", 0);
  const Case c{131, 18, 64, true, true};
  for (const auto format : kFormats) {
    compare(draw, draw_weights(draw, format, c.outputs, c.depth), draw.values<float>(c.rows * c.depth), c);
  }
}

TEST(QuantizedProduct, DoesNotOverflowAtTheExtremes) {
  for (const auto format : kFormats) {
    Draw draw("quantized_product_extremes", static_cast<std::int64_t>(format));
    for (const int stored : {0, 1, format == BlockFormat::kQ8_0 ? 255 : 15}) {
      for (const float value : {-3.0f, 3.0f, 1e-30f, 0x1p-99f, 0x1p-101f, 1e-40f, 0.0f, 3e38f}) {
        auto w = draw_weights(draw, format, 17, 64);
        std::ranges::fill(w.stored, stored);
        std::ranges::fill(w.scales, std::uint16_t{0x2001});
        std::ranges::fill(w.minima, std::uint16_t{0x9ffe});
        Exact<float> x(3 * 64);
        for (std::size_t k = 0; k < 3 * 64; ++k) x.data()[k] = k % 7 == 3 && k >= 64 ? -value : value;
        Activations expected = quantized(x, 3, 64);
        EXPECT_EQ(expected.values[0] == 0, std::fabs(value) < kernel::kSmallestActivation);
        if (value < 1e38f) compare(draw, w, x, {3, 17, 64, false, false});
      }
    }
  }
}

TEST(QuantizedProduct, RowsThatAreNotFiniteGiveNaNAlone) {
  for (const auto& kernels : all_kernels()) {
    for (const auto format : kFormats) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -INFINITY}) {
        Draw draw("quantized_product_nan", 0);
        const auto w = draw_weights(draw, format, 16, 96);
        const auto panels = packed(w);
        auto x = draw.values<float>(2 * 96);
        x.data()[96 + 40] = bad;
        Activations own(2, 96);
        auto y = draw.untouched<float>(2 * 16);
        auto rows = own.rows();
        if (kernels.in_tiles) rows.num_in_tiles = 2;
        kernels.quantize(2, 96, x.data(), rows);
        const kernel::QuantizedProduct product{.format = format,
                                               .num_rows = 2,
                                               .depth = 96,
                                               .num_outputs = 16,
                                               .x = rows,
                                               .panels = panels.data(),
                                               .y = y.data(),
                                               .y_stride = 16};
        kernels.multiply(0, 1, product);
        for (int n = 0; n < 16; ++n) {
          EXPECT_TRUE(std::isfinite(y.at(n)));
          EXPECT_TRUE(std::isnan(y.at(16 + n)));
        }
      }
    }
  }
}

TEST(QuantizedProduct, PanelsAreDequantizedToTheirValues) {
  for_rounds("dequantize_panels", [](Draw& draw) {
    for (const auto format : kFormats) {
      const auto outputs = draw.size(1, 3) * kPanelRows, depth = 32 * draw.size(1, 4);
      const auto w = draw_weights(draw, format, outputs, depth);
      const auto panels = packed(w);
      for (const auto isa : instruction_sets()) {
        auto out = draw.untouched<float>(outputs * depth);
        QUIVER_ON_ISA(isa, kernel, dequantize_panels, 0, outputs / kPanelRows, depth, format, panels.data(), out.data());
        for (std::int64_t n = 0; n < outputs; ++n) {
          for (std::int64_t k = 0; k < depth; ++k) {
            ASSERT_EQ(out.data()[n * depth + k], static_cast<float>(w.value(n, k))) << tensor::cpu_isa_name(isa);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace quiver::kernel_test
