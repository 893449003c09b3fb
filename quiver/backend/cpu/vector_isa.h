// Vectors of float32 for the kernels that are compiled once per instruction set. Everything here has internal linkage:
// two instruction sets must never share a function.
#pragma once

#include <cstdint>

#include "quiver/backend/cpu/bf16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define QUIVER_INLINE [[maybe_unused]] static inline __attribute__((always_inline))

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int IntVec __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t BitsVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef std::uint16_t HalfVec __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

QUIVER_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
QUIVER_INLINE void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
QUIVER_INLINE Vec splat(float x) { return x - Vec{}; }

QUIVER_INLINE Vec load(const Bf16* p) {
#if defined(__AVX512F__)  // GCC 12 would widen in two halves; it warns of its own header without the mask
  const __m512i words = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return __builtin_bit_cast(Vec, __builtin_bit_cast(BitsVec, words) << 16);
#else
  const auto halves = *reinterpret_cast<const HalfVec*>(p);
  return __builtin_bit_cast(Vec, __builtin_convertvector(halves, BitsVec) << 16);
#endif
}
QUIVER_INLINE void store(Bf16* p, Vec v) {  // round to nearest even; NaN stays NaN
#if defined(__AVX512BF16__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v))));
#else
  const auto bits = __builtin_bit_cast(BitsVec, v);
  const BitsVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitsVec is_nan = reinterpret_cast<const BitsVec&>(static_cast<const decltype(v != v)&>(v != v));
  const BitsVec halves = (rounded & ~is_nan) | (is_nan & 0x7fc0u);
  *reinterpret_cast<HalfVec*>(p) = __builtin_convertvector(halves, HalfVec);
#endif
}

/// The first `count` <= kLanes elements, and zeros.
template <typename T>
QUIVER_INLINE Vec load_some(const T* p, std::int64_t count) {
  if (count == kLanes) return load(p);
  T lanes[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return load(lanes);
}
template <typename T>
QUIVER_INLINE void store_some(T* p, std::int64_t count, Vec v) {
  if (count == kLanes) return store(p, v);
  T lanes[kLanes];
  store(lanes, v);
  for (std::int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

/// Calls f(first, count) for every kLanes elements of [begin, end) and the rest, which is fewer.
template <typename F>
QUIVER_INLINE void for_vectors(std::int64_t begin, std::int64_t end, F f) {
  auto i = begin;
  for (; i + kLanes <= end; i += kLanes) f(i, std::int64_t{kLanes});
  if (i < end) f(i, end - i);
}

QUIVER_INLINE float sum_lanes(Vec v) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    IntVec other;
    for (int l = 0; l < kLanes; ++l) other[l] = (l + half) % kLanes;
    v += __builtin_shuffle(v, other);
  }
  return v[0];
}

/// Lane i is the sum of v[i]'s lanes. Halves of two vectors are added at a time, so it costs less than two sum_lanes do.
QUIVER_INLINE Vec sum_lanes_of_all(Vec* v) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    IntVec low, high;  // of each run of 2 half lanes: the one's folded run, then the other's
    for (int l = 0; l < kLanes; ++l) {
      const int run = l / (2 * half) * (2 * half), at = l % (2 * half);
      low[l] = at < half ? run + at : kLanes + run + at - half;
      high[l] = low[l] + half;
    }
    for (int i = 0; i < half; ++i) v[i] = __builtin_shuffle(v[i], v[i + half], low) + __builtin_shuffle(v[i], v[i + half], high);
  }
  return v[0];
}

QUIVER_INLINE float to_float(float x) { return x; }
QUIVER_INLINE float to_float(Bf16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }
QUIVER_INLINE void from_float(float x, float& out) { out = x; }
QUIVER_INLINE void from_float(float x, Bf16& out) {  // round to nearest even; NaN stays NaN
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  const auto rounded = static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  out.bits = x != x ? std::uint16_t{0x7fc0} : rounded;
}

/// exp(x) for x <= 0 to 2 ulp; 0 below -87, NaN for NaN.
QUIVER_INLINE Vec exp_negative(Vec x) {
  const IntVec is_zero = x < splat(-87.0f);
  x = is_zero ? splat(-87.0f) : x;
  const Vec t = x * 1.44269504088896341f;
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = (t + magic) - magic;
  const Vec f = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts
  Vec y = splat(1.9875691500e-4f);
  y = y * f + 1.3981999507e-3f;
  y = y * f + 8.3334519073e-3f;
  y = y * f + 4.1665795894e-2f;
  y = y * f + 1.6666665459e-1f;
  y = y * f + 5.0000001201e-1f;
  y = y * f * f + f + 1.0f;
  const IntVec exponent = (__builtin_convertvector(n, IntVec) + 127) << 23;
  const Vec result = y * reinterpret_cast<const Vec&>(exponent);
  return is_zero ? Vec{} : result;
}

}  // namespace
}  // namespace quiver::backend::kernel::QUIVER_ISA
