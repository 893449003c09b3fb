// Products by quantised panels on the CPU's best instruction set.
#pragma once

#include <cstdint>

#include "quiver/backend/cpu/quantized_product_isa.h"

namespace quiver::backend::cpu {

/// Rows of activations [num_rows, depth] to be quantised into these places. They are to lie in tiles where AMX is there and has enough rows
/// to be faster: a product by them has the same bits, and takes 0.6 to 0.75 of the time from 16 rows on.
kernel::QuantizedRows quantized_rows(std::int64_t num_rows, std::int64_t depth, std::int16_t* values, float* scales, std::int32_t* sums);

/// Rows [begin, end) of x [M, K] into their places in `rows`. A block with a number that is not finite gets NaN as its scale. Thread-safe
/// for different rows.
void quantize_rows(std::int64_t begin, std::int64_t end, std::int64_t depth, const float* x, const kernel::QuantizedRows& rows);

/// The outputs of panels [begin, end). Thread-safe for different panels.
void quantized_product(std::int64_t begin, std::int64_t end, const kernel::QuantizedProduct& product);

}  // namespace quiver::backend::cpu
