#include "quiver/nn/kernels/elementwise_isa.h"

#include "quiver/nn/kernels/vector_isa.h"

namespace quiver::nn::kernel::QUIVER_ISA {
namespace {

constexpr std::int64_t kChunk = 64;

/// Calls f(first, count, ...) with up to kChunk elements of each source as floats. Keeps the loops below free of
/// dtypes: conversion and arithmetic each vectorise.
template <typename T>
QUIVER_INLINE void load_chunk(const T* source, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = to_float(source[i]);
}
template <typename T>
QUIVER_INLINE void store_chunk(const float* source, std::int64_t count, T* out) {
  for (std::int64_t i = 0; i < count; ++i) from_float(source[i], out[i]);
}

QUIVER_INLINE Vec magnitude(Vec v) { return v < Vec{} ? -v : v; }

/// 1 / (1 + exp(-x)) without overflow.
QUIVER_INLINE Vec sigmoid(Vec x) {
  const Vec z = exp_negative(-magnitude(x));
  return (x < Vec{} ? z : splat(1.0f)) / (z + 1.0f);
}

}  // namespace

template <typename T>
void rms_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t dim, float epsilon, const T* x, const float* weight,
                      T* y, float* inverse_rms) {
  for (auto row = begin; row < end; ++row) {
    const T* in = x + row * dim;
    T* out = y + row * dim;
    float partial[kChunk] = {};
    for (std::int64_t d = 0; d < dim; d += kChunk) {
      const auto count = d + kChunk < dim ? kChunk : dim - d;
      for (std::int64_t i = 0; i < count; ++i) partial[i] += to_float(in[d + i]) * to_float(in[d + i]);
    }
    float squares = 0;
    for (const float p : partial) squares += p;
    const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(dim) + epsilon);
    inverse_rms[row] = inverse;
    for (std::int64_t d = 0; d < dim; ++d) from_float(to_float(in[d]) * inverse * weight[d], out[d]);
  }
}

/// With n = x / rms: dx = (w dy - n mean(w dy n)) / rms, added to `onto` unless that is null.
template <typename T>
void rms_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t dim, const T* dy, const T* x, const float* weight,
                       const float* inverse_rms, const T* onto, T* dx) {
  for (auto row = begin; row < end; ++row) {
    const T* in = x + row * dim;
    const T* grad = dy + row * dim;
    T* out = dx + row * dim;
    const float inverse = inverse_rms[row];
    float partial[kChunk] = {};
    for (std::int64_t d = 0; d < dim; d += kChunk) {
      const auto count = d + kChunk < dim ? kChunk : dim - d;
      for (std::int64_t i = 0; i < count; ++i) {
        partial[i] += to_float(grad[d + i]) * weight[d + i] * to_float(in[d + i]);
      }
    }
    float dot = 0;
    for (const float p : partial) dot += p;
    const float factor = dot * inverse * inverse / static_cast<float>(dim);
    if (onto == nullptr) {
      for (std::int64_t d = 0; d < dim; ++d) {
        from_float(inverse * (to_float(grad[d]) * weight[d] - to_float(in[d]) * factor), out[d]);
      }
    } else {
      const T* sum = onto + row * dim;
      for (std::int64_t d = 0; d < dim; ++d) {
        from_float(to_float(sum[d]) + inverse * (to_float(grad[d]) * weight[d] - to_float(in[d]) * factor), out[d]);
      }
    }
  }
}

template <typename T>
void rotate(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim, float sign, const T* x,
            const float* cosine, const float* sine, T* y) {
  const auto half = dim / 2;
  for (auto row = begin; row < end; ++row) {
    const float* c = cosine + row * half;
    const float* s = sine + row * half;
    for (std::int64_t h = 0; h < heads; ++h) {
      const T* in = x + (row * heads + h) * dim;
      T* out = y + (row * heads + h) * dim;
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = to_float(in[i]), b = to_float(in[i + half]);
        from_float(a * c[i] - sign * b * s[i], out[i]);
        from_float(b * c[i] + sign * a * s[i], out[i + half]);
      }
    }
  }
}

template <typename T>
void swiglu_forward(std::int64_t begin, std::int64_t end, const T* gate, const T* up, T* y) {
  float g[kChunk] = {}, u[kChunk] = {};
  for (auto first = begin; first < end; first += kChunk) {
    const auto count = first + kChunk < end ? kChunk : end - first;
    load_chunk(gate + first, count, g);
    load_chunk(up + first, count, u);
    for (std::int64_t i = 0; i < kChunk; i += kLanes) {
      const Vec x = load(g + i);
      store(g + i, x * sigmoid(x) * load(u + i));
    }
    store_chunk(g, count, y + first);
  }
}

/// silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x).
template <typename T>
void swiglu_backward(std::int64_t begin, std::int64_t end, const T* dy, const T* gate, const T* up, T* dgate, T* dup) {
  float g[kChunk] = {}, u[kChunk] = {}, grad[kChunk] = {};
  for (auto first = begin; first < end; first += kChunk) {
    const auto count = first + kChunk < end ? kChunk : end - first;
    load_chunk(gate + first, count, g);
    load_chunk(up + first, count, u);
    load_chunk(dy + first, count, grad);
    for (std::int64_t i = 0; i < kChunk; i += kLanes) {
      const Vec x = load(g + i), d = load(grad + i);
      const Vec s = sigmoid(x);
      store(g + i, d * load(u + i) * s * (x * (1.0f - s) + 1.0f));
      store(u + i, d * x * s);
    }
    store_chunk(g, count, dgate + first);
    store_chunk(u, count, dup + first);
  }
}

template <typename T>
void log_sum_exp(std::int64_t begin, std::int64_t end, std::int64_t vocab, const T* logits, float* lse, std::int64_t* best) {
  float chunk[kChunk];
  for (auto row = begin; row < end; ++row) {
    const T* x = logits + row * vocab;
    float highest = to_float(x[0]);
    std::int64_t where = 0;
    for (std::int64_t first = 0; first < vocab; first += kChunk) {
      const auto count = first + kChunk < vocab ? kChunk : vocab - first;
      load_chunk(x + first, count, chunk);
      float top = chunk[0];
      for (std::int64_t i = 1; i < count; ++i) top = chunk[i] > top ? chunk[i] : top;
      if (top > highest) {  // rare: only then look where
        highest = top;
        for (std::int64_t i = 0; i < count; ++i) {
          if (chunk[i] == top) {
            where = first + i;
            break;
          }
        }
      }
    }
    Vec total = {};
    for (std::int64_t first = 0; first < vocab; first += kChunk) {
      const auto count = first + kChunk < vocab ? kChunk : vocab - first;
      load_chunk(x + first, count, chunk);
      for (auto i = count; i < kChunk; ++i) chunk[i] = -__builtin_inff();
      for (std::int64_t i = 0; i < kChunk; i += kLanes) total += exp_negative(load(chunk + i) - highest);
    }
    lse[row] = highest + __builtin_logf(sum_lanes(total));
    best[row] = where;
  }
}

template <typename T>
void cross_entropy_gradient(std::int64_t begin, std::int64_t end, std::int64_t vocab, T* logits, const float* lse,
                            const std::int64_t* target, const float* weight) {
  float chunk[kChunk] = {};
  for (auto row = begin; row < end; ++row) {
    T* x = logits + row * vocab;
    const float logit = to_float(x[target[row]]);
    for (std::int64_t first = 0; first < vocab; first += kChunk) {
      const auto count = first + kChunk < vocab ? kChunk : vocab - first;
      load_chunk(x + first, count, chunk);
      for (std::int64_t i = 0; i < kChunk; i += kLanes) store(chunk + i, exp_negative(load(chunk + i) - lse[row]) * weight[row]);
      store_chunk(chunk, count, x + first);
    }
    from_float((__builtin_expf(logit - lse[row]) - 1.0f) * weight[row], x[target[row]]);
  }
}

#define QUIVER_INSTANTIATE(T)                                                                                              \
  template void rms_norm_forward<T>(std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*, T*, float*);  \
  template void rms_norm_backward<T>(std::int64_t, std::int64_t, std::int64_t, const T*, const T*, const float*,           \
                                     const float*, const T*, T*);                                                          \
  template void rotate<T>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*,           \
                          const float*, T*);                                                                               \
  template void swiglu_forward<T>(std::int64_t, std::int64_t, const T*, const T*, T*);                                     \
  template void swiglu_backward<T>(std::int64_t, std::int64_t, const T*, const T*, const T*, T*, T*);                      \
  template void log_sum_exp<T>(std::int64_t, std::int64_t, std::int64_t, const T*, float*, std::int64_t*);                 \
  template void cross_entropy_gradient<T>(std::int64_t, std::int64_t, std::int64_t, T*, const float*, const std::int64_t*, \
                                          const float*);
QUIVER_INSTANTIATE(float)
QUIVER_INSTANTIATE(Bf16)

}  // namespace quiver::nn::kernel::QUIVER_ISA
