#include "quiver/backend/cpu/coarse_scores.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "quiver/backend/row_parts.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend::cpu {
namespace {

using kernel::kBlockWidth;
using torch::Tensor;

constexpr double kRounding = 2e-4;
constexpr float kAdjustmentRounding = 1e-5f;  // of an adjusted score, relative to its terms

/// Rows [N, d_in] in blocks of Q8_0, [N, d_in / 32, 34], a scale in float16 and 32 weights each: weight = d q, d = max |w| / 127 of the
/// block.
Tensor to_blocks(const Tensor& rows) {
  const auto blocks = rows.view({rows.size(0), rows.size(1) / kBlockWidth, kBlockWidth});
  const auto scale = (blocks.abs().amax(2, /*keepdim=*/true) / 127).to(torch::kHalf);
  const auto wide = scale.to(torch::kFloat);
  const auto numbers = torch::where(wide > 0, blocks / wide, torch::zeros_like(blocks)).round().clamp(-127, 127).to(torch::kChar);
  return torch::cat({scale.view(torch::kByte), numbers.view(torch::kByte)}, 2).contiguous();
}

/// x in 16 bits, and its norm.
struct RoundedRow {
  std::vector<std::int16_t> values;
  std::vector<float> scales;
  std::vector<std::int32_t> sums;

  RoundedRow(const float* x, std::int64_t width)
      : values(static_cast<std::size_t>(width)), scales(static_cast<std::size_t>(width / kBlockWidth)), sums(scales.size()) {
    QUIVER_ON_ISA(tensor::cpu_isa(), kernel, quantize_rows, 0, 1, width, x, in_kernels_terms());
  }
  kernel::QuantizedRows in_kernels_terms() { return {values.data(), scales.data(), sums.data()}; }
};

float norm_of(const float* x, std::int64_t width) {
  return std::sqrt(std::transform_reduce(x, x + width, x, 0.0f, std::plus<>(), std::multiplies<>()));
}

}  // namespace

CoarseScores pack_coarse(const Tensor& rows) {
  if (rows.size(1) % kBlockWidth != 0 || rows.size(0) <= kernel::kPanelRows) return {};
  CoarseScores coarse{.rows = QuantizedMatrix(to_blocks(rows)), .error = {}};
  const auto wide = rows.to(torch::kDouble);
  const auto error = (wide - coarse.rows.dense().to(torch::kDouble)).norm(2, {1}) + kRounding * wide.norm(2, {1});
  for (const auto e : tensor::elements<double>(error, "errors of coarse prototypes")) coarse.error.push_back(static_cast<float>(e));
  return coarse;
}

std::vector<std::int64_t> candidates(const CoarseScores& coarse, const float* x, std::int64_t top_k, const Adjustment& adjustment) {
  const auto num_adapters = coarse.rows.num_outputs(), width = coarse.rows.depth();
  std::vector<std::int64_t> found;
  const auto norm = norm_of(x, width);
  if (!std::isfinite(norm)) {
    found.resize(static_cast<std::size_t>(num_adapters));
    std::iota(found.begin(), found.end(), 0);
    return found;
  }
  RoundedRow row(x, width);
  std::vector<float> scores(static_cast<std::size_t>(num_adapters)), least(scores.size());
  auto product = coarse.rows.kernel_product();
  product.num_rows = 1;
  product.x = row.in_kernels_terms();
  product.y = scores.data();
  product.y_stride = num_adapters;
  QUIVER_ON_ISA(tensor::cpu_isa(), kernel, quantized_product, 0, divide_up(num_adapters, kernel::kPanelRows), product);
  // The score is somewhere in middle -+ margin.
  const auto margin = [&](std::int64_t n, float score) {
    const auto scale = adjustment.scale == nullptr ? 1.0f : std::abs(adjustment.scale[n]);
    const auto terms = scale * score + (adjustment.scale == nullptr ? 0.0f : std::abs(adjustment.shift[n])) +
                       (adjustment.bias == nullptr ? 0.0f : std::abs(adjustment.bias[n]));
    return 1.0001f * scale * coarse.error[static_cast<std::size_t>(n)] * norm + kAdjustmentRounding * terms;
  };
  for (std::int64_t n = 0; n < num_adapters; ++n) {
    auto& score = scores[static_cast<std::size_t>(n)];
    score = std::abs(score);
    least[static_cast<std::size_t>(n)] = adjustment.of(n, score) - margin(n, score);
  }
  const auto kth = least.begin() + (top_k - 1);
  std::nth_element(least.begin(), kth, least.end(), std::greater<>());
  for (std::int64_t n = 0; n < num_adapters; ++n) {
    const auto score = scores[static_cast<std::size_t>(n)];
    if (!(adjustment.of(n, score) + margin(n, score) < *kth)) found.push_back(n);
  }
  return found;
}

}  // namespace quiver::backend::cpu
