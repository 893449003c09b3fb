// Arithmetic on untrusted sizes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace quiver {

/// product(shape) * item_bytes, or nullopt if a dimension is negative or the product overflows.
inline std::optional<std::uint64_t> byte_count(std::span<const std::int64_t> shape, std::uint64_t item_bytes) {
  std::uint64_t total = item_bytes;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (__builtin_mul_overflow(total, static_cast<std::uint64_t>(dim), &total)) return std::nullopt;
  }
  return total;
}

/// a + b, or nullopt if the sum overflows.
inline std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

}  // namespace quiver
