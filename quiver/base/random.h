// Named random streams. A stream is a function of (seed, name) alone, so that no result depends on what else was
// drawn, in which order, or by which thread.
#pragma once

#include <cstdint>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver {

/// A 64-bit seed derived from `seed` and a path such as "init/task363" (the first 8 bytes of a SHA-256).
std::uint64_t derive_seed(std::uint64_t seed, std::string_view name);

/// A stream of random numbers with distributions that are the same on every platform (those of <random> are not).
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name) : engine_(derive_seed(seed, name)) {}

  std::uint64_t next() { return engine_(); }
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }
  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform in {0, ..., n - 1}; n >= 1. Unbiased (rejection).
  std::uint64_t below(std::uint64_t n);

  /// Fisher-Yates.
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace quiver
