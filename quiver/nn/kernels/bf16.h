#pragma once

#include <cstdint>

namespace quiver::nn::kernel {

/// bfloat16 as its bits.
struct Bf16 {
  std::uint16_t bits;
};

}  // namespace quiver::nn::kernel
