// What the fuzz targets share. Any bytes at all: a parser either yields values that lie within them or throws
// quiver::Error; every other exception is a finding.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string_view>

namespace quiver::fuzz {

/// Reads each byte, so that a sanitizer sees one that is out of bounds.
inline unsigned touch_every_byte(std::span<const std::byte> bytes) {
  volatile unsigned sum = 0;
  for (const std::byte byte : bytes) sum = sum + static_cast<unsigned>(byte);
  return sum;
}

inline void expect(bool condition, const char* what) {
  if (!condition) throw std::logic_error(what);  // not a quiver::Error: a finding
}

inline std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace quiver::fuzz
