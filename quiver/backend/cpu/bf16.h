#pragma once

#include <cstdint>

namespace quiver::backend::kernel {

/// bfloat16 as its bits.
struct Bf16 {
  std::uint16_t bits;
};

}  // namespace quiver::backend::kernel
