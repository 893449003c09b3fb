#include "quiver/backend/quantized_matrix.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "quiver/backend/cpu/huge_pages.h"
#include "quiver/backend/cpu/quantized_product.h"
#include "quiver/backend/row_parts.h"
#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

using kernel::BlockFormat;
using kernel::kBlockWidth;
using kernel::kPanelRows;
using torch::Tensor;

constexpr std::int64_t kMultipliesAtOnce = 1 << 17;  // the least that is worth another thread

/// The format whose blocks have so many bytes in a file.
std::optional<BlockFormat> format_of(std::int64_t block_bytes) {
  for (const auto format : {BlockFormat::kQ8_0, BlockFormat::kQ4_0, BlockFormat::kQ4_1}) {
    if (kernel::panel_block_bytes(format) == kPanelRows * block_bytes) return format;
  }
  return {};
}

/// One block of a file's row, into its place of row r in a panel's block. A file has the scale first, then the minimum, then the bytes. A
/// 4-bit block has columns 0 to 15 in the low halves and 16 to 31 in the high ones.
void place_block(BlockFormat format, const std::uint8_t* from, std::int64_t r, std::uint8_t* to) {
  constexpr int kByteOf[] = {0, 2, 1, 3};
  const bool is_byte = format == BlockFormat::kQ8_0;
  std::memcpy(to + (is_byte ? 512 : 256) + 2 * r, from, 2);
  if (format == BlockFormat::kQ4_1) std::memcpy(to + 288 + 2 * r, from + 2, 2);
  const auto* stored = from + (format == BlockFormat::kQ4_1 ? 4 : 2);
  to += 4 * r;
  if (is_byte) {
    for (int k = 0; k < kBlockWidth; ++k) to[64 * (k / 4) + kByteOf[k % 4]] = static_cast<std::uint8_t>(stored[k] ^ 128);
    return;
  }
  const auto half = [&](int column) { return column < 16 ? stored[column] & 15 : stored[column - 16] >> 4; };
  for (int j = 0; j < 4; ++j) {
    for (int c = 0; c < 4; ++c) {
      to[64 * j + kByteOf[c]] = static_cast<std::uint8_t>(half(8 * j + c) | half(8 * j + 4 + c) << 4);
    }
  }
}

}  // namespace

bool is_blocks(const Tensor& t) {
  return t.defined() && t.is_cpu() && t.scalar_type() == torch::kByte && t.dim() == 3 && format_of(t.size(2)).has_value();
}

Tensor blocks_to_dense(const Tensor& blocks) { return QuantizedMatrix(blocks).dense(); }

QuantizedMatrix::QuantizedMatrix(const Tensor& blocks) {
  if (!is_blocks(blocks)) fail(ErrorKind::kInternal, "not rows in blocks: {}", tensor::describe(blocks));
  format_ = *format_of(blocks.size(2));
  num_outputs_ = blocks.size(0);
  depth_ = blocks.size(1) * kBlockWidth;
  const auto stored = blocks.contiguous();
  const auto num_panels = divide_up(num_outputs_, kPanelRows), num_blocks = blocks.size(1), block_bytes = blocks.size(2);
  const auto panel_bytes = num_blocks * kernel::panel_block_bytes(format_);
  panels_ = cpu::huge_page_bytes(num_panels * panel_bytes);
  const auto* from = tensor::trusted_data<std::uint8_t>(stored);
  auto* to = tensor::mutable_trusted_data<std::uint8_t>(panels_);
  at::parallel_for(0, num_panels, 8, [&](std::int64_t begin, std::int64_t end) {
    for (auto panel = begin; panel < end; ++panel) {
      const auto rows = std::min(kPanelRows, num_outputs_ - panel * kPanelRows);
      if (rows < kPanelRows) std::memset(to + panel * panel_bytes, 0, static_cast<std::size_t>(panel_bytes));
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto* row = from + (panel * kPanelRows + r) * num_blocks * block_bytes;
        for (std::int64_t b = 0; b < num_blocks; ++b) {
          place_block(format_, row + b * block_bytes, r, to + panel * panel_bytes + b * kernel::panel_block_bytes(format_));
        }
      }
    }
  });
}

kernel::QuantizedProduct QuantizedMatrix::kernel_product() const {
  return {.format = format_, .depth = depth_, .num_outputs = num_outputs_, .panels = tensor::trusted_data<std::uint8_t>(panels_)};
}

Tensor QuantizedMatrix::product(const Tensor& x, const Tensor& bias, const Tensor& onto) const {
  if (x.dim() != 2 || x.size(1) != depth_ || x.scalar_type() != torch::kFloat || !x.is_cpu()) {
    fail(ErrorKind::kMismatch, "x is {}; expected [tokens, {}] of Float on cpu", tensor::describe(x), depth_);
  }
  const auto rows = x.contiguous(), first = onto.defined() ? onto.contiguous() : onto, start = bias.defined() ? bias.contiguous() : bias;
  const auto count = x.size(0), num_blocks = depth_ / kBlockWidth;
  auto y = torch::empty({count, num_outputs_}, torch::kFloat);
  if (count == 0) return y;
  const auto values = torch::empty({count, depth_}, torch::kShort), scales = torch::empty({count, num_blocks}, torch::kFloat);
  const auto sums = torch::empty({count, num_blocks}, torch::kInt);
  auto product = kernel_product();
  product.num_rows = count;
  product.x = cpu::quantized_rows(count, depth_, tensor::mutable_trusted_data<std::int16_t>(values),
                                  tensor::mutable_trusted_data<float>(scales), tensor::mutable_trusted_data<std::int32_t>(sums));
  if (start.defined()) product.bias = tensor::raw_data<float>(start, "bias of a product", {num_outputs_});
  if (first.defined()) product.onto = tensor::raw_data<float>(first, "onto of a product", {count, num_outputs_});
  product.y = tensor::mutable_trusted_data<float>(y);
  product.onto_stride = product.y_stride = num_outputs_;
  const auto* in = tensor::trusted_data<float>(rows);
  at::parallel_for(0, count, 32, [&](std::int64_t begin, std::int64_t end) { cpu::quantize_rows(begin, end, depth_, in, product.x); });
  const auto grain = std::max<std::int64_t>(1, kMultipliesAtOnce / std::max<std::int64_t>(1, count * depth_ * kPanelRows));
  at::parallel_for(0, divide_up(num_outputs_, kPanelRows), grain,
                   [&](std::int64_t begin, std::int64_t end) { cpu::quantized_product(begin, end, product); });
  return y;
}

Tensor QuantizedMatrix::rows(const Tensor& index) const {
  const auto numbers = index.cpu().contiguous();
  const auto* at = tensor::raw_data<std::int64_t>(numbers, "index of rows", {index.numel()});
  auto values = torch::empty({index.numel(), depth_}, torch::kFloat);
  const auto panel = torch::empty({kPanelRows, depth_}, torch::kFloat);
  const auto product = kernel_product();
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    if (at[i] < 0 || at[i] >= num_outputs_) fail(ErrorKind::kInternal, "row {} of a matrix of {}", at[i], num_outputs_);
    const auto p = at[i] / kPanelRows;
    QUIVER_ON_ISA(tensor::cpu_isa(), kernel, dequantize_panels, p, p + 1, depth_, format_, product.panels,
                  tensor::mutable_trusted_data<float>(panel));
    values[i].copy_(panel[at[i] % kPanelRows]);
  }
  return values;
}

Tensor QuantizedMatrix::dense() const {
  const auto num_panels = divide_up(num_outputs_, kPanelRows);
  auto values = torch::empty({num_panels * kPanelRows, depth_}, torch::kFloat);
  const auto product = kernel_product();
  auto* out = tensor::mutable_trusted_data<float>(values);
  at::parallel_for(0, num_panels, 4, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(tensor::cpu_isa(), kernel, dequantize_panels, begin, end, depth_, format_, product.panels,
                  out + begin * kPanelRows * depth_);
  });
  return values.narrow(0, 0, num_outputs_).contiguous();
}

}  // namespace quiver::backend
