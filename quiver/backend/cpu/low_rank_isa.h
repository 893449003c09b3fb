// The small products of a LoRA on the CPU, one namespace per instruction set, compiled from one source
// (low_rank_isa.cpp). No C++ library code in either: see quiver/backend/cpu/attention_isa.h.
//
// A factor is float32 [r, d], contiguous: A itself, or B^T. Sums are float32.
#pragma once

#include <cstdint>

#include "quiver/backend/cpu/bf16.h"

namespace quiver::backend::kernel {

#define QUIVER_LOW_RANK_KERNELS(ISA)                                                                                             \
  namespace ISA {                                                                                                                \
  /* z [T, r] = x [T, d] factor^T */                                                                                             \
  template <typename T>                                                                                                          \
  void shrink(std::int64_t rows, std::int64_t dim, std::int64_t rank, const T* x, const float* factor, float* z);                \
  /* y [T, d] = onto + z factor; onto null for 0, and may be y */                                                                \
  template <typename T>                                                                                                          \
  void expand(std::int64_t rows, std::int64_t dim, std::int64_t rank, const float* z, const float* factor, const T* onto, T* y); \
  /* out [r, d] = z^T x */                                                                                                       \
  template <typename T>                                                                                                          \
  void outer(std::int64_t rows, std::int64_t dim, std::int64_t rank, const float* z, const T* x, float* out);                    \
  }
QUIVER_LOW_RANK_KERNELS(v2)
QUIVER_LOW_RANK_KERNELS(v3)
QUIVER_LOW_RANK_KERNELS(v4)
QUIVER_LOW_RANK_KERNELS(v4bf16)
#undef QUIVER_LOW_RANK_KERNELS

}  // namespace quiver::backend::kernel
