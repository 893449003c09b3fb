// Row-wise kernels of a transformer block: normalisation, rotation, gating, cross-entropy. One namespace per
// instruction set; all arithmetic is float32. Each works on rows [begin, end).
#pragma once

#include <cstdint>

#include "quiver/backend/activation.h"
#include "quiver/backend/cpu/bf16.h"

namespace quiver::backend::kernel {

#define QUIVER_ELEMENTWISE_KERNELS(ISA)                                                                                                    \
  namespace ISA {                                                                                                                          \
  /* y = x / rms(x) * weight; inverse_rms [T] is kept for the backward pass. */                                                            \
  template <typename T>                                                                                                                    \
  void rms_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t dim, float epsilon, const T* x, const float* weight, T* y,      \
                        float* inverse_rms);                                                                                               \
  template <typename T>                                                                                                                    \
  void rms_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t dim, const T* dy, const T* x, const float* weight,             \
                         const float* inverse_rms, const T* onto, T* dx);                                                                  \
  /* y = (x - mean) / deviation * weight + bias; mean and inverse [T] are kept for the backward pass. */                                   \
  template <typename T>                                                                                                                    \
  void layer_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t dim, float epsilon, const T* x, const float* weight,          \
                          const float* bias, T* y, float* mean, float* inverse);                                                           \
  template <typename T>                                                                                                                    \
  void layer_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t dim, const T* dy, const T* x, const float* weight,           \
                           const float* mean, const float* inverse, const T* onto, T* dx);                                                 \
  /* Rotates pairs (i, i + half) of each head by the row's angles; sign -1 rotates back. cosine, sine [T, half]. The rest passes. */       \
  template <typename T>                                                                                                                    \
  void rotate(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim, std::int64_t half, float sign, const T* x,       \
              const float* cosine, const float* sine, T* y);                                                                               \
  /* y = act(gate) * up, or act(gate) where up is null; any activation. Element ranges. */                                                 \
  template <typename T>                                                                                                                    \
  void activation_forward(Activation activation, std::int64_t begin, std::int64_t end, const T* gate, const T* up, T* y);                  \
  template <typename T>                                                                                                                    \
  void activation_backward(Activation activation, std::int64_t begin, std::int64_t end, const T* dy, const T* gate, const T* up, T* dgate, \
                           T* dup);                                                                                                        \
  /* y = silu(gate) * up. Element ranges. */                                                                                               \
  template <typename T>                                                                                                                    \
  void swiglu_forward(std::int64_t begin, std::int64_t end, const T* gate, const T* up, T* y);                                             \
  template <typename T>                                                                                                                    \
  void swiglu_backward(std::int64_t begin, std::int64_t end, const T* dy, const T* gate, const T* up, T* dgate, T* dup);                   \
  /* Per row: log-sum-exp of the logits, and the index of the largest (the first of equals). */                                            \
  template <typename T>                                                                                                                    \
  void log_sum_exp(std::int64_t begin, std::int64_t end, std::int64_t vocab, const T* logits, float* lse, std::int64_t* best);             \
  /* logits <- weight[row] * (softmax(logits) - onehot(target)), in place. */                                                              \
  template <typename T>                                                                                                                    \
  void cross_entropy_gradient(std::int64_t begin, std::int64_t end, std::int64_t vocab, T* logits, const float* lse,                       \
                              const std::int64_t* target, const float* weight);                                                            \
  }
QUIVER_ELEMENTWISE_KERNELS(v2)
QUIVER_ELEMENTWISE_KERNELS(v3)
QUIVER_ELEMENTWISE_KERNELS(v4)
QUIVER_ELEMENTWISE_KERNELS(v4bf16)
#undef QUIVER_ELEMENTWISE_KERNELS

}  // namespace quiver::backend::kernel
