#include "quiver/backend/cpu/elementwise_isa.h"

#include "quiver/backend/cpu/vector_isa.h"

namespace quiver::backend::kernel::QUIVER_ISA {
namespace {

QUIVER_INLINE Vec magnitude(Vec v) { return v < Vec{} ? -v : v; }

/// 1 / (1 + exp(-x)) without overflow.
QUIVER_INLINE Vec sigmoid(Vec x) {
  const Vec z = exp_negative(-magnitude(x));
  return (x < Vec{} ? z : splat(1.0f)) / (z + 1.0f);
}

}  // namespace

template <typename T>
void rms_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t dim, float epsilon, const T* x, const float* weight, T* y,
                      float* inverse_rms) {
  for (auto row = begin; row < end; ++row) {
    const T* in = x + row * dim;
    T* out = y + row * dim;
    Vec squares = {};
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      const Vec v = load_some(in + d, count);
      squares += v * v;
    });
    const float inverse = 1.0f / __builtin_sqrtf(sum_lanes(squares) / static_cast<float>(dim) + epsilon);
    inverse_rms[row] = inverse;
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      store_some(out + d, count, load_some(in + d, count) * inverse * load_some(weight + d, count));
    });
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
    Vec dots = {};
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      dots += load_some(grad + d, count) * load_some(weight + d, count) * load_some(in + d, count);
    });
    const float factor = sum_lanes(dots) * inverse * inverse / static_cast<float>(dim);
    const T* sum = onto == nullptr ? nullptr : onto + row * dim;
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      const Vec gradient = inverse * (load_some(grad + d, count) * load_some(weight + d, count) - load_some(in + d, count) * factor);
      store_some(out + d, count, sum == nullptr ? gradient : load_some(sum + d, count) + gradient);
    });
  }
}

template <typename T>
void rotate(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim, float sign, const T* x, const float* cosine,
            const float* sine, T* y) {
  const auto half = dim / 2;
  for (auto row = begin; row < end; ++row) {
    for_vectors(0, half, [&](std::int64_t i, std::int64_t count) {
      const Vec c = load_some(cosine + row * half + i, count), s = sign * load_some(sine + row * half + i, count);
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto first = (row * heads + h) * dim + i;
        const Vec a = load_some(x + first, count), b = load_some(x + first + half, count);
        store_some(y + first, count, a * c - b * s);
        store_some(y + first + half, count, b * c + a * s);
      }
    });
  }
}

template <typename T>
void swiglu_forward(std::int64_t begin, std::int64_t end, const T* gate, const T* up, T* y) {
  for_vectors(begin, end, [&](std::int64_t i, std::int64_t count) {
    const Vec x = load_some(gate + i, count);
    store_some(y + i, count, x * sigmoid(x) * load_some(up + i, count));
  });
}

/// silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x).
template <typename T>
void swiglu_backward(std::int64_t begin, std::int64_t end, const T* dy, const T* gate, const T* up, T* dgate, T* dup) {
  for_vectors(begin, end, [&](std::int64_t i, std::int64_t count) {
    const Vec x = load_some(gate + i, count), d = load_some(dy + i, count);
    const Vec s = sigmoid(x);
    store_some(dgate + i, count, d * load_some(up + i, count) * s * (x * (1.0f - s) + 1.0f));
    store_some(dup + i, count, d * x * s);
  });
}

template <typename T>
void log_sum_exp(std::int64_t begin, std::int64_t end, std::int64_t vocab, const T* logits, float* lse, std::int64_t* best) {
  const auto infinity = __builtin_inff();
  const auto masked = [&](const T* x, std::int64_t count) {  // -inf beyond the end
    Vec v = load_some(x, count);
    for (auto l = count; l < kLanes; ++l) v[l] = -infinity;
    return v;
  };
  for (auto row = begin; row < end; ++row) {
    const T* x = logits + row * vocab;
    Vec tops = splat(-infinity);
    IntVec found = {};  // per lane: the first vector that holds its largest
    for_vectors(0, vocab, [&](std::int64_t i, std::int64_t count) {
      const Vec v = masked(x + i, count);
      const IntVec is_larger = v > tops;
      tops = is_larger ? v : tops;
      found = is_larger ? IntVec{} + static_cast<int>(i) : found;
    });
    float highest = tops[0];
    std::int64_t where = found[0];
    for (int l = 1; l < kLanes; ++l) {
      if (tops[l] > highest || (tops[l] == highest && found[l] + l < where)) {
        highest = tops[l];
        where = found[l] + l;
      }
    }
    Vec total = {};
    for_vectors(0, vocab, [&](std::int64_t i, std::int64_t count) { total += exp_negative(masked(x + i, count) - highest); });
    lse[row] = highest + __builtin_logf(sum_lanes(total));
    best[row] = where;
  }
}

template <typename T>
void cross_entropy_gradient(std::int64_t begin, std::int64_t end, std::int64_t vocab, T* logits, const float* lse,
                            const std::int64_t* target, const float* weight) {
  for (auto row = begin; row < end; ++row) {
    T* x = logits + row * vocab;
    const float logit = to_float(x[target[row]]);
    for_vectors(0, vocab, [&](std::int64_t i, std::int64_t count) {
      store_some(x + i, count, exp_negative(load_some(x + i, count) - lse[row]) * weight[row]);
    });
    from_float((__builtin_expf(logit - lse[row]) - 1.0f) * weight[row], x[target[row]]);
  }
}

#define QUIVER_INSTANTIATE(T)                                                                                                            \
  template void rms_norm_forward<T>(std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*, T*, float*);                \
  template void rms_norm_backward<T>(std::int64_t, std::int64_t, std::int64_t, const T*, const T*, const float*, const float*, const T*, \
                                     T*);                                                                                                \
  template void rotate<T>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*, const float*, T*);      \
  template void swiglu_forward<T>(std::int64_t, std::int64_t, const T*, const T*, T*);                                                   \
  template void swiglu_backward<T>(std::int64_t, std::int64_t, const T*, const T*, const T*, T*, T*);                                    \
  template void log_sum_exp<T>(std::int64_t, std::int64_t, std::int64_t, const T*, float*, std::int64_t*);                               \
  template void cross_entropy_gradient<T>(std::int64_t, std::int64_t, std::int64_t, T*, const float*, const std::int64_t*, const float*);
QUIVER_INSTANTIATE(float)
QUIVER_INSTANTIATE(Bf16)

}  // namespace quiver::backend::kernel::QUIVER_ISA
