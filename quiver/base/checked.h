// Arithmetic on untrusted sizes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

namespace quiver {

/// product(shape) * item_bytes, or nullopt if a dimension is negative, or if the product overflows with every dimension at least 1:
/// [0, 2^62, 2^62] holds nothing, but its strides overflow.
inline std::optional<std::uint64_t> tensor_bytes(std::span<const std::int64_t> shape, std::uint64_t item_bytes) {
  std::uint64_t bound = item_bytes;
  std::uint64_t total = item_bytes;
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bound, static_cast<std::uint64_t>(std::max<std::int64_t>(dim, 1)), &bound)) return std::nullopt;
    total *= static_cast<std::uint64_t>(dim);
  }
  return bound > static_cast<std::uint64_t>(INT64_MAX) ? std::nullopt : std::optional(total);
}

/// a + b, or nullopt if the sum overflows.
inline std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

}  // namespace quiver
