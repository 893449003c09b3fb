// Random tensors for tests.
#pragma once

#include <torch/utils.h>

namespace quiver::testing {

/// A new generator of the CPU.
inline torch::Generator seeded(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

/// Standard normal float32 numbers, times `scale`; the same for the same seed.
inline torch::Tensor draw(torch::IntArrayRef sizes, std::uint64_t seed, double scale = 1) {
  auto generator = seeded(seed);
  return torch::randn(sizes, generator, torch::kFloat) * scale;
}

}  // namespace quiver::testing
