// What the tests of kernels share: buffers without a byte to spare, random shapes and values, comparison with a plain definition.
//
// A check draws a shape and values, and runs a kernel on every instruction set that this CPU has. Without libtorch, so that
// AddressSanitizer and UndefinedBehaviorSanitizer see every access (make asan-kernels).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "quiver/backend/cpu/bf16.h"
#include "quiver/base/random.h"
#include "quiver/tensor/cpu.h"

namespace quiver::kernel_test {

using backend::kernel::Bf16;
using tensor::CpuIsa;

/// Instruction sets that this CPU has.
std::vector<CpuIsa> instruction_sets();

inline double to_double(float x) { return x; }
inline double to_double(Bf16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }
inline double to_double(std::int64_t x) { return static_cast<double>(x); }
/// Rounds to nearest even.
void from_double(double x, float& out);
void from_double(double x, Bf16& out);

/// The value of elements that a kernel must not write.
inline constexpr double kUntouched = 77;

/// Elements on the heap. The last one ends where the allocation ends, so that AddressSanitizer sees a read beyond it; the first one lies
/// `offset` elements behind an aligned address.
template <typename T>
class Exact {
 public:
  explicit Exact(std::int64_t size, std::int64_t offset = 0)
      : size_(static_cast<std::size_t>(size)),
        memory_(::operator new((size_ + static_cast<std::size_t>(offset)) * sizeof(T), kAlignment)),
        data_(static_cast<T*>(memory_.get()) + offset) {}

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::span<T> all() { return {data_, size_}; }
  std::span<const T> all() const { return {data_, size_}; }
  double at(std::int64_t i) const { return to_double(data_[i]); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::size_t size_;
  std::unique_ptr<void, Free> memory_;
  T* data_;
};

/// Random shapes and values of one round.
class Draw {
 public:
  Draw(const std::string& name, std::int64_t round) : random_(1, name + "/" + std::to_string(round)) {}

  /// Uniform in [low, high].
  std::int64_t size(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(high - low + 1)));
  }
  /// A width: small ones, those around whole vectors, sometimes a large one.
  std::int64_t width();
  bool coin() { return random_.below(2) == 0; }
  double uniform(double low, double high) { return random_.uniform(low, high); }

  template <typename T>
  Exact<T> values(std::int64_t count, double low = -2, double high = 2) {
    Exact<T> drawn(count, size(0, 17));
    for (auto& value : drawn.all()) from_double(uniform(low, high), value);
    return drawn;
  }
  /// For results.
  template <typename T>
  Exact<T> untouched(std::int64_t count) {
    Exact<T> drawn(count, size(0, 17));
    for (auto& value : drawn.all()) from_double(kUntouched, value);
    return drawn;
  }

 private:
  RandomStream random_;
};

/// Values that a result is compared with; kUntouched where it must not have been written.
using Expected = std::vector<double>;
inline Expected untouched(std::int64_t count) { return Expected(static_cast<std::size_t>(count), kUntouched); }
template <typename T>
Expected expected_of(const Exact<T>& values) {
  Expected result;
  for (const auto value : values.all()) result.push_back(to_double(value));
  return result;
}

/// How far a result may be from its definition: `relative` times itself, `of_largest` times the largest value of all, and
/// `absolute`, where terms of size 1 may cancel.
struct Tolerance {
  double relative, of_largest, absolute;
};
template <typename T>
constexpr Tolerance kRounding = {1e-5, 1e-6, 1e-6};
template <>
inline constexpr Tolerance kRounding<Bf16> = {0x1p-8, 1e-6, 1e-6};

void expect_near(const std::function<double(std::size_t)>& actual, std::size_t size, const Expected& expected, Tolerance tolerance,
                 const std::string& what, CpuIsa isa);
template <typename T>
void expect_near(const Exact<T>& actual, const Expected& expected, Tolerance tolerance, const std::string& what, CpuIsa isa) {
  expect_near([&](std::size_t i) { return to_double(actual.data()[i]); }, actual.all().size(), expected, tolerance, what, isa);
}

/// Calls check(draw) for some rounds, or for SECONDS_EACH seconds where that is set; ends at the first failure.
void for_rounds(const std::string& name, const std::function<void(Draw&)>& check);

}  // namespace quiver::kernel_test
