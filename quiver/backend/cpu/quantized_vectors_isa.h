// What the kernels of quantised products share; compiled once per instruction set, with internal linkage (see vector_isa.h).
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "quiver/backend/cpu/quantized_product_isa.h"
#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

typedef std::int16_t Shorts __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

constexpr int kParts = kPanelRows / kLanes;  // vectors of a panel's rows

// Each instruction set's own instructions.
#if defined(__AVX512F__)
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {
  return __builtin_bit_cast(Vec,
                            _mm512_fmadd_ps(__builtin_bit_cast(__m512, a), __builtin_bit_cast(__m512, b), __builtin_bit_cast(__m512, c)));
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  return __builtin_bit_cast(Vec, _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm512_maskz_cvtps_epi32(0xffff, __builtin_bit_cast(__m512, v))); }
#elif defined(__AVX2__)
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {
  return __builtin_bit_cast(Vec,
                            _mm256_fmadd_ps(__builtin_bit_cast(__m256, a), __builtin_bit_cast(__m256, b), __builtin_bit_cast(__m256, c)));
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  return __builtin_bit_cast(Vec, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm256_cvtps_epi32(__builtin_bit_cast(__m256, v))); }
#else
QUIVER_INLINE Vec fused(Vec a, Vec b, Vec c) {  // by the C library, which rounds once, too
  for (int l = 0; l < kLanes; ++l) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
  return c;
}
QUIVER_INLINE Vec halves(const std::uint8_t* p) {
  Vec result;
  for (int l = 0; l < kLanes; ++l) {
    const auto bits = static_cast<std::uint32_t>(p[2 * l] | p[2 * l + 1] << 8);
    const bool is_finite = (bits & 0x7c00u) != 0x7c00u;
    const float magnitude = __builtin_bit_cast(float, (bits & 0x7fffu) << 13) * 0x1p112f;  // subnormal ones, too
    const auto wide = is_finite ? __builtin_bit_cast(std::uint32_t, magnitude) : (bits & 0x7fffu) << 13 | 0x7f800000u;
    result[l] = __builtin_bit_cast(float, wide | (bits & 0x8000u) << 16);
  }
  return result;
}
QUIVER_INLINE IntVec rounded(Vec v) { return __builtin_bit_cast(IntVec, _mm_cvtps_epi32(__builtin_bit_cast(__m128, v))); }
#endif

QUIVER_INLINE Vec to_floats(IntVec v) { return __builtin_convertvector(v, Vec); }
QUIVER_INLINE IntVec splat_int(int x) { return x - IntVec{}; }

/// Calls f(0), ..., f(kCount - 1) with constants. GCC 12 keeps an array in registers only where its indices are constants before loops are
/// unrolled.
template <int kCount, int kFrom = 0, typename F>
QUIVER_INLINE void repeat(const F& f) {
  if constexpr (kFrom < kCount) {
    f(std::integral_constant<int, kFrom>());
    repeat<kCount, kFrom + 1>(f);
  }
}
#define QUIVER_INLINE_LAMBDA __attribute__((always_inline))

QUIVER_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// y of a row and of vector `part` of a panel's columns, from its sum of products.
QUIVER_INLINE void finish_row(const QuantizedProduct& p, std::int64_t panel, std::int64_t row, int part, Vec y) {
  const auto column = panel * kPanelRows + part * kLanes, left = p.num_outputs - column;
  if (left <= 0) return;
  const auto count = smaller(left, kLanes);
  if (p.bias != nullptr) y += load_some(p.bias + column, count);
  if (p.onto != nullptr) y += load_some(p.onto + row * p.onto_stride + column, count);
  store_some(p.y + row * p.y_stride + column, count, y);
}

/// A vector in fours. GCC 12 makes slow code of shuffles of whole vectors.
typedef int Quad __attribute__((vector_size(16)));
struct Quads {
  Quad at[kLanes / 4];
};
QUIVER_INLINE int largest_lane(IntVec v) {
  const auto quads = __builtin_bit_cast(Quads, v);
  Quad most = quads.at[0];
  for (int i = 1; i < kLanes / 4; ++i) most = most > quads.at[i] ? most : quads.at[i];
  const int a = most[0] > most[1] ? most[0] : most[1], b = most[2] > most[3] ? most[2] : most[3];
  return a > b ? a : b;
}
QUIVER_INLINE int sum_of_lanes(IntVec v) {
  const auto quads = __builtin_bit_cast(Quads, v);
  Quad sum = quads.at[0];
  for (int i = 1; i < kLanes / 4; ++i) sum += quads.at[i];
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

QUIVER_INLINE void quantize_block(const float* x, std::int16_t* values, float& scale, std::int32_t& sum) {
  constexpr int kVectors = kBlockWidth / kLanes;
  IntVec largest = {};  // magnitudes order as their bits do, with infinity and NaN on top
  for (int j = 0; j < kVectors; ++j) {
    const IntVec magnitude = __builtin_bit_cast(IntVec, load(x + j * kLanes)) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  const int bits = largest_lane(largest);
  const float most = __builtin_bit_cast(float, bits);
  const bool is_finite = bits < 0x7f800000;
  if (!is_finite || most < kSmallestActivation) {
    for (int k = 0; k < kBlockWidth; ++k) values[k] = 0;
    scale = is_finite ? 0.0f : __builtin_nanf("");
    sum = 0;
    return;
  }
  const float inverse = kLargestActivation / most;
  IntVec total = {};
  for (int j = 0; j < kVectors; ++j) {
    const IntVec q = rounded(load(x + j * kLanes) * inverse);
    total += q;
    *reinterpret_cast<Shorts*>(values + j * kLanes) = __builtin_convertvector(q, Shorts);
  }
  scale = most / kLargestActivation;
  sum = sum_of_lanes(total);
}

}  // namespace
}  // namespace quiver::backend::kernel::QUIVER_ISA
