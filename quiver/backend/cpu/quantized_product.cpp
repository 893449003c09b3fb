#include "quiver/backend/cpu/quantized_product.h"

#include "quiver/tensor/cpu.h"

namespace quiver::backend::cpu {
namespace {

constexpr std::int64_t kFewestTileRows = 12;  // of fewer, AVX-512 is as fast

}  // namespace

kernel::QuantizedRows quantized_rows(std::int64_t num_rows, std::int64_t depth, std::int16_t* values, float* scales, std::int32_t* sums) {
  const bool in_tiles = num_rows >= kFewestTileRows && depth <= kernel::kMostTileDepth && tensor::has_amx();
  return {values, scales, sums, in_tiles ? num_rows : 0};
}

void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const kernel::QuantizedRows& rows) {
  if (rows.num_in_tiles > 0) return kernel::amx::quantize_rows(begin, end, depth, x, rows);
  QUIVER_ON_ISA(tensor::cpu_isa(), kernel, quantize_rows, begin, end, depth, x, rows);
}

void quantized_product(std::int64_t begin, std::int64_t end, const kernel::QuantizedProduct& product) {
  if (product.x.num_in_tiles > 0) return kernel::amx::quantized_product(begin, end, product);
  QUIVER_ON_ISA(tensor::cpu_isa(), kernel, quantized_product, begin, end, product);
}

}  // namespace quiver::backend::cpu
