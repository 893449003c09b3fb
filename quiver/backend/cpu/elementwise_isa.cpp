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

QUIVER_INLINE Vec hyperbolic_tangent(Vec x) {
  const Vec z = exp_negative(-2.0f * magnitude(x));
  const Vec t = (1.0f - z) / (1.0f + z);
  return x < Vec{} ? -t : t;
}

/// erf(x) to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26), given exp(-x^2).
QUIVER_INLINE Vec error_function(Vec x, Vec gauss) {
  const Vec t = 1.0f / (1.0f + 0.3275911f * magnitude(x));
  const Vec sum = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  const Vec y = 1.0f - sum * gauss;
  return x < Vec{} ? -y : y;
}

/// act(x) and its derivative.
struct Activated {
  Vec value, slope;
};
constexpr float kRootTwoOverPi = 0.7978845608f;

struct Silu {
  QUIVER_INLINE Activated of(Vec x) {
    const Vec s = sigmoid(x);
    return {x * s, s * (x * (1.0f - s) + 1.0f)};
  }
};
struct Gelu {
  QUIVER_INLINE Activated of(Vec x) {
    const Vec gauss = exp_negative(-0.5f * x * x);
    const Vec share = 0.5f * (1.0f + error_function(x * 0.7071067812f, gauss));
    return {x * share, share + x * gauss * (0.5f * kRootTwoOverPi)};
  }
};
struct GeluTanh {
  QUIVER_INLINE Activated of(Vec x) {
    const Vec t = hyperbolic_tangent(kRootTwoOverPi * x * (1.0f + 0.044715f * x * x));
    return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kRootTwoOverPi * (1.0f + 0.134145f * x * x)};
  }
};
struct Relu {
  QUIVER_INLINE Activated of(Vec x) {
    const Vec one = splat(1.0f);
    return {x < Vec{} ? Vec{} : x, x > Vec{} ? one : Vec{}};
  }
};

/// Calls f(Silu()) or another.
template <typename F>
QUIVER_INLINE void with_activation(Activation activation, F f) {
  switch (activation) {
    case Activation::kSilu: return f(Silu());
    case Activation::kGelu: return f(Gelu());
    case Activation::kGeluTanh: return f(GeluTanh());
    case Activation::kRelu: return f(Relu());
  }
}

}  // namespace

template <typename T>
void layer_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t dim, float epsilon, const T* x, const float* weight,
                        const float* bias, T* y, float* mean, float* inverse) {
  const float count_all = static_cast<float>(dim);
  for (auto row = begin; row < end; ++row) {
    const T* in = x + row * dim;
    Vec sum = {};
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) { sum += load_some(in + d, count); });
    const float centre = sum_lanes(sum) / count_all;
    // In a second pass: a difference of squares would cancel. Lanes beyond the end add nothing.
    Vec squares = {};
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      Vec v = load_some(in + d, count) - centre;
      for (auto l = count; l < kLanes; ++l) v[l] = 0;
      squares += v * v;
    });
    const float scale = 1.0f / __builtin_sqrtf(sum_lanes(squares) / count_all + epsilon);
    mean[row] = centre;
    inverse[row] = scale;
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      store_some(y + row * dim + d, count,
                 (load_some(in + d, count) - centre) * scale * load_some(weight + d, count) + load_some(bias + d, count));
    });
  }
}

/// With n = (x - mean) / deviation: dx = (w dy - mean(w dy) - n mean(w dy n)) / deviation, added to `onto` unless that is null.
template <typename T>
void layer_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t dim, const T* dy, const T* x, const float* weight,
                         const float* mean, const float* inverse, const T* onto, T* dx) {
  for (auto row = begin; row < end; ++row) {
    const T *in = x + row * dim, *grad = dy + row * dim, *start = onto == nullptr ? nullptr : onto + row * dim;
    const float centre = mean[row], scale = inverse[row];
    Vec sums = {}, dots = {};
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      const Vec scaled = load_some(grad + d, count) * load_some(weight + d, count);  // 0 beyond the end
      sums += scaled;
      dots += scaled * (load_some(in + d, count) - centre);
    });
    const float mean_scaled = sum_lanes(sums) / static_cast<float>(dim);
    const float factor = sum_lanes(dots) * scale * scale / static_cast<float>(dim);
    for_vectors(0, dim, [&](std::int64_t d, std::int64_t count) {
      const Vec scaled = load_some(grad + d, count) * load_some(weight + d, count);
      const Vec gradient = scale * (scaled - mean_scaled - (load_some(in + d, count) - centre) * factor);
      store_some(dx + row * dim + d, count, start == nullptr ? gradient : load_some(start + d, count) + gradient);
    });
  }
}

template <typename T>
void activation_forward(Activation activation, std::int64_t begin, std::int64_t end, const T* gate, const T* up, T* y) {
  with_activation(activation, [&](auto act) {
    for_vectors(begin, end, [&](std::int64_t i, std::int64_t count) {
      const Vec value = act.of(load_some(gate + i, count)).value;
      store_some(y + i, count, up == nullptr ? value : value * load_some(up + i, count));
    });
  });
}

template <typename T>
void activation_backward(Activation activation, std::int64_t begin, std::int64_t end, const T* dy, const T* gate, const T* up, T* dgate,
                         T* dup) {
  with_activation(activation, [&](auto act) {
    for_vectors(begin, end, [&](std::int64_t i, std::int64_t count) {
      const Activated a = act.of(load_some(gate + i, count));
      const Vec d = load_some(dy + i, count);
      store_some(dgate + i, count, up == nullptr ? d * a.slope : d * load_some(up + i, count) * a.slope);
      if (up != nullptr) store_some(dup + i, count, d * a.value);
    });
  });
}

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
void rotate(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim, std::int64_t half, float sign, const T* x,
            const float* cosine, const float* sine, T* y) {
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
    for (auto h = row * heads; 2 * half < dim && h < (row + 1) * heads; ++h) {
      for (auto i = 2 * half; i < dim; ++i) y[h * dim + i] = x[h * dim + i];
    }
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
  template void rotate<T>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*,           \
                          const float*, T*);                                                                                             \
  template void layer_norm_forward<T>(std::int64_t, std::int64_t, std::int64_t, float, const T*, const float*, const float*, T*, float*, \
                                      float*);                                                                                           \
  template void layer_norm_backward<T>(std::int64_t, std::int64_t, std::int64_t, const T*, const T*, const float*, const float*,         \
                                       const float*, const T*, T*);                                                                      \
  template void activation_forward<T>(Activation, std::int64_t, std::int64_t, const T*, const T*, T*);                                   \
  template void activation_backward<T>(Activation, std::int64_t, std::int64_t, const T*, const T*, const T*, T*, T*);                    \
  template void swiglu_forward<T>(std::int64_t, std::int64_t, const T*, const T*, T*);                                                   \
  template void swiglu_backward<T>(std::int64_t, std::int64_t, const T*, const T*, const T*, T*, T*);                                    \
  template void log_sum_exp<T>(std::int64_t, std::int64_t, std::int64_t, const T*, float*, std::int64_t*);                               \
  template void cross_entropy_gradient<T>(std::int64_t, std::int64_t, std::int64_t, T*, const float*, const std::int64_t*, const float*);
QUIVER_INSTANTIATE(float)
QUIVER_INSTANTIATE(Bf16)

}  // namespace quiver::backend::kernel::QUIVER_ISA
