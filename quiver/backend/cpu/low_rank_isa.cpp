// Compiled once per instruction set, with QUIVER_ISA naming the namespace (cmake/layers.cmake).
//
// Blocks of kRows tokens by kRanks rows of the factor keep their sums in registers. The last columns, where d is not a
// multiple of the lanes, go through copies padded with zeros.
#include "quiver/backend/cpu/low_rank_isa.h"

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

constexpr int kRows = 4, kRanks = 4;  // of shrink
constexpr int kVectors = 2;
#if defined(__AVX512F__)
constexpr int kExpandedRows = 8;
#else
constexpr int kExpandedRows = 4;
#endif
// Rows of x that are gone through at once, so that they stay in the second-level cache.
constexpr std::int64_t kRowsAtOnce = 32;

/// Calls f.operator()<n>() for n = min(most, kMost).
template <int kMost, typename F>
QUIVER_INLINE void with_count(std::int64_t most, F f) {
  if constexpr (kMost > 1) {
    if (most < kMost) return with_count<kMost - 1>(most, f);
  }
  f.template operator()<kMost>();
}

template <int kR, int kK, typename T>
QUIVER_INLINE void shrink_block(std::int64_t dim, std::int64_t rank, const T* x, const float* factor, float* z) {
  Vec sum[kR][kK] = {};
  const auto add = [&](auto load_x, auto load_factor) {
    Vec left[kR];
    for (int i = 0; i < kR; ++i) left[i] = load_x(x + i * dim);
    for (int k = 0; k < kK; ++k) {
      const Vec right = load_factor(factor + k * dim);
      for (int i = 0; i < kR; ++i) sum[i][k] += left[i] * right;
    }
  };
  std::int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    add([d](const T* p) { return load(p + d); }, [d](const float* p) { return load(p + d); });
  }
  if (d < dim) {
    add([=](const T* p) { return load_some(p + d, dim - d); }, [=](const float* p) { return load_some(p + d, dim - d); });
  }
  if constexpr (kR * kK % kLanes == 0) {
    for (int first = 0; first < kR * kK; first += kLanes) {
      const Vec sums = sum_lanes_of_all(&sum[0][0] + first);
      for (int l = 0; l < kLanes; ++l) z[(first + l) / kK * rank + (first + l) % kK] = sums[l];
    }
  } else {
    for (int i = 0; i < kR; ++i) {
      for (int k = 0; k < kK; ++k) z[i * rank + k] = sum_lanes(sum[i][k]);
    }
  }
}

template <int kR, typename T>
QUIVER_INLINE void expand_block(std::int64_t dim, std::int64_t rank, const float* z, const float* factor, const T* onto, T* y) {
  std::int64_t d = 0;
  for (; d + kVectors * kLanes <= dim; d += kVectors * kLanes) {
    Vec sum[kR][kVectors] = {};
    if (onto != nullptr) {
      for (int i = 0; i < kR; ++i) {
        for (int v = 0; v < kVectors; ++v) sum[i][v] = load(onto + i * dim + d + v * kLanes);
      }
    }
    for (std::int64_t k = 0; k < rank; ++k) {
      Vec right[kVectors];
      for (int v = 0; v < kVectors; ++v) right[v] = load(factor + k * dim + d + v * kLanes);
      for (int i = 0; i < kR; ++i) {
        for (int v = 0; v < kVectors; ++v) sum[i][v] += z[i * rank + k] * right[v];
      }
    }
    for (int i = 0; i < kR; ++i) {
      for (int v = 0; v < kVectors; ++v) store(y + i * dim + d + v * kLanes, sum[i][v]);
    }
  }
  for (; d < dim; d += kLanes) {
    const auto count = dim - d < kLanes ? dim - d : kLanes;
    for (int i = 0; i < kR; ++i) {
      Vec sum = onto != nullptr ? load_some(onto + i * dim + d, count) : Vec{};
      for (std::int64_t k = 0; k < rank; ++k) sum += z[i * rank + k] * load_some(factor + k * dim + d, count);
      store_some(y + i * dim + d, count, sum);
    }
  }
}

template <int kK, typename T>
QUIVER_INLINE void outer_block(std::int64_t rows, std::int64_t dim, std::int64_t rank, const float* z, const T* x, float* out,
                               bool accumulate) {
  std::int64_t d = 0;
  for (; d + kVectors * kLanes <= dim; d += kVectors * kLanes) {
    Vec sum[kK][kVectors] = {};
    if (accumulate) {
      for (int k = 0; k < kK; ++k) {
        for (int v = 0; v < kVectors; ++v) sum[k][v] = load(out + k * dim + d + v * kLanes);
      }
    }
    for (std::int64_t t = 0; t < rows; ++t) {
      Vec right[kVectors];
      for (int v = 0; v < kVectors; ++v) right[v] = load(x + t * dim + d + v * kLanes);
      for (int k = 0; k < kK; ++k) {
        for (int v = 0; v < kVectors; ++v) sum[k][v] += z[t * rank + k] * right[v];
      }
    }
    for (int k = 0; k < kK; ++k) {
      for (int v = 0; v < kVectors; ++v) store(out + k * dim + d + v * kLanes, sum[k][v]);
    }
  }
  for (; d < dim; d += kLanes) {
    const auto count = dim - d < kLanes ? dim - d : kLanes;
    Vec sum[kK] = {};
    if (accumulate) {
      for (int k = 0; k < kK; ++k) sum[k] = load_some(out + k * dim + d, count);
    }
    for (std::int64_t t = 0; t < rows; ++t) {
      const Vec right = load_some(x + t * dim + d, count);
      for (int k = 0; k < kK; ++k) sum[k] += z[t * rank + k] * right;
    }
    for (int k = 0; k < kK; ++k) store_some(out + k * dim + d, count, sum[k]);
  }
}

}  // namespace

template <typename T>
void shrink(std::int64_t rows, std::int64_t dim, std::int64_t rank, const T* x, const float* factor, float* z) {
  for (std::int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const auto last = first + kRowsAtOnce < rows ? first + kRowsAtOnce : rows;
    for (std::int64_t k = 0; k < rank; k += kRanks) {
      with_count<kRanks>(rank - k, [&]<int kK>() {
        auto t = first;
        for (; t + kRows <= last; t += kRows) shrink_block<kRows, kK>(dim, rank, x + t * dim, factor + k * dim, z + t * rank + k);
        for (; t < last; ++t) shrink_block<1, kK>(dim, rank, x + t * dim, factor + k * dim, z + t * rank + k);
      });
    }
  }
}

template <typename T>
void expand(std::int64_t rows, std::int64_t dim, std::int64_t rank, const float* z, const float* factor, const T* onto, T* y) {
  const auto of = [&](std::int64_t t) { return onto == nullptr ? nullptr : onto + t * dim; };
  std::int64_t t = 0;
  for (; t + kExpandedRows <= rows; t += kExpandedRows) {
    expand_block<kExpandedRows>(dim, rank, z + t * rank, factor, of(t), y + t * dim);
  }
  for (; t < rows; ++t) expand_block<1>(dim, rank, z + t * rank, factor, of(t), y + t * dim);
}

template <typename T>
void outer(std::int64_t rows, std::int64_t dim, std::int64_t rank, const float* z, const T* x, float* out) {
  std::int64_t first = 0;
  do {  // at least once: no rows give zeros
    const auto count = first + kRowsAtOnce < rows ? kRowsAtOnce : rows - first;
    for (std::int64_t k = 0; k < rank; k += 2 * kRanks) {
      with_count<2 * kRanks>(
          rank - k, [&]<int kK>() { outer_block<kK>(count, dim, rank, z + first * rank + k, x + first * dim, out + k * dim, first > 0); });
    }
    first += kRowsAtOnce;
  } while (first < rows);
}

#define QUIVER_INSTANTIATE(T)                                                                                  \
  template void shrink<T>(std::int64_t, std::int64_t, std::int64_t, const T*, const float*, float*);           \
  template void expand<T>(std::int64_t, std::int64_t, std::int64_t, const float*, const float*, const T*, T*); \
  template void outer<T>(std::int64_t, std::int64_t, std::int64_t, const float*, const T*, float*);
QUIVER_INSTANTIATE(float)
QUIVER_INSTANTIATE(Bf16)

}  // namespace quiver::backend::kernel::QUIVER_ISA
