#include <ATen/Parallel.h>
#include <torch/utils.h>

#include "quiver/backend/cpu/columns.h"
#include "quiver/backend/cpu/elementwise_isa.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::backend::cpu {
namespace {

using tensor::CpuIsa;
using tensor::mutable_trusted_data;
using tensor::trusted_data;

constexpr std::int64_t kRowGrain = 16;
constexpr std::int64_t kElementGrain = 16384;

template <CpuIsa kIsa, typename T>
Normed rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  Normed normed{x.new_empty(x.sizes()), torch::empty({x.size(0)}, torch::kFloat)};
  const auto* in = trusted_data<T>(x);
  const auto* w = trusted_data<float>(weight);
  auto* y = mutable_trusted_data<T>(normed.y);
  auto* inverse_rms = mutable_trusted_data<float>(normed.inverse_rms);
  at::parallel_for(0, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, rms_norm_forward<T>, begin, end, x.size(1), static_cast<float>(epsilon), in, w, y, inverse_rms);
  });
  return normed;
}

template <CpuIsa kIsa, typename T>
Tensor rms_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& onto) {
  auto result = x.new_empty(x.sizes());
  const auto *upstream = trusted_data<T>(dy), *in = trusted_data<T>(x), *start = onto.defined() ? trusted_data<T>(onto) : nullptr;
  const auto *w = trusted_data<float>(weight), *inverse = trusted_data<float>(inverse_rms);
  auto* dx = mutable_trusted_data<T>(result);
  at::parallel_for(0, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, rms_norm_backward<T>, begin, end, x.size(1), upstream, in, w, inverse, start, dx);
  });
  return result;
}

template <CpuIsa kIsa, typename T>
LayerNormed layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const auto statistics = torch::empty({2, x.size(0)}, torch::kFloat);
  LayerNormed normed{x.new_empty(x.sizes()), statistics[0], statistics[1]};
  const auto* in = trusted_data<T>(x);
  const auto *w = trusted_data<float>(weight), *b = trusted_data<float>(bias);
  auto* y = mutable_trusted_data<T>(normed.y);
  auto *mean = mutable_trusted_data<float>(normed.mean), *inverse = mutable_trusted_data<float>(normed.inverse_deviation);
  at::parallel_for(0, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, layer_norm_forward<T>, begin, end, x.size(1), static_cast<float>(epsilon), in, w, b, y, mean, inverse);
  });
  return normed;
}

template <CpuIsa kIsa, typename T>
Tensor layer_norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight, const LayerNormed& normed, const Tensor& onto) {
  auto result = x.new_empty(x.sizes());
  const auto *upstream = trusted_data<T>(dy), *in = trusted_data<T>(x), *start = onto.defined() ? trusted_data<T>(onto) : nullptr;
  const auto *w = trusted_data<float>(weight), *mean = trusted_data<float>(normed.mean);
  const auto* inverse = trusted_data<float>(normed.inverse_deviation);
  auto* dx = mutable_trusted_data<T>(result);
  at::parallel_for(0, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, layer_norm_backward<T>, begin, end, x.size(1), upstream, in, w, mean, inverse, start, dx);
  });
  return result;
}

template <CpuIsa kIsa, typename T>
void rotate_into(const Tensor& x, const Tensor& cosine, const Tensor& sine, Rotation rotation, const Tensor& out) {
  const float sign = rotation == Rotation::kBack ? -1.0f : 1.0f;
  const auto* in = trusted_data<T>(x);
  const auto *c = trusted_data<float>(cosine), *s = trusted_data<float>(sine);
  auto* y = mutable_trusted_data<T>(out);
  at::parallel_for(0, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, rotate<T>, begin, end, x.size(1), x.size(2), cosine.size(1), sign, in, c, s, y);
  });
}

/// act(gate) * up, or act(gate) where `up` is undefined.
template <CpuIsa kIsa, typename T>
Tensor activate(Activation activation, const Tensor& gate, const Tensor& up) {
  auto result = gate.new_empty(gate.sizes());
  const auto *g = trusted_data<T>(gate), *u = up.defined() ? trusted_data<T>(up) : nullptr;
  auto* y = mutable_trusted_data<T>(result);
  at::parallel_for(0, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, activation_forward<T>, activation, begin, end, g, u, y);
  });
  return result;
}

template <CpuIsa kIsa, typename T>
GatedGradient activate_gradient(Activation activation, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  GatedGradient gradient{gate.new_empty(gate.sizes()), up.defined() ? gate.new_empty(gate.sizes()) : Tensor()};
  const auto *upstream = trusted_data<T>(dy), *g = trusted_data<T>(gate), *u = up.defined() ? trusted_data<T>(up) : nullptr;
  auto *dgate = mutable_trusted_data<T>(gradient.gate), *dup = up.defined() ? mutable_trusted_data<T>(gradient.up) : nullptr;
  at::parallel_for(0, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, activation_backward<T>, activation, begin, end, upstream, g, u, dgate, dup);
  });
  return gradient;
}

template <CpuIsa kIsa, typename T>
Tensor activated(Activation activation, const Tensor& x) {
  return activate<kIsa, T>(activation, x, {});
}

template <CpuIsa kIsa, typename T>
Tensor activated_gradient(Activation activation, const Tensor& dy, const Tensor& x) {
  return activate_gradient<kIsa, T>(activation, dy, x, {}).gate;
}

template <CpuIsa kIsa, typename T>
Tensor gated(Activation activation, const Tensor& gate, const Tensor& up) {
  if (activation != Activation::kSilu) return activate<kIsa, T>(activation, gate, up);
  auto result = gate.new_empty(gate.sizes());
  const auto *g = trusted_data<T>(gate), *u = trusted_data<T>(up);
  auto* y = mutable_trusted_data<T>(result);
  at::parallel_for(0, gate.numel(), kElementGrain,
                   [&](std::int64_t begin, std::int64_t end) { QUIVER_ON_ISA(kIsa, kernel, swiglu_forward<T>, begin, end, g, u, y); });
  return result;
}

template <CpuIsa kIsa, typename T>
GatedGradient gated_gradient(Activation activation, const Tensor& dy, const Tensor& gate, const Tensor& up) {
  if (activation != Activation::kSilu) return activate_gradient<kIsa, T>(activation, dy, gate, up);
  GatedGradient gradient{gate.new_empty(gate.sizes()), gate.new_empty(gate.sizes())};
  const auto *upstream = trusted_data<T>(dy), *g = trusted_data<T>(gate), *u = trusted_data<T>(up);
  auto *dgate = mutable_trusted_data<T>(gradient.gate), *dup = mutable_trusted_data<T>(gradient.up);
  at::parallel_for(0, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, swiglu_backward<T>, begin, end, upstream, g, u, dgate, dup);
  });
  return gradient;
}

template <CpuIsa kIsa, typename T>
LogitsSummary summarize_logits(const Tensor& logits) {
  LogitsSummary summary{torch::empty({logits.size(0)}, torch::kFloat), torch::empty({logits.size(0)}, torch::kLong)};
  const auto* in = trusted_data<T>(logits);
  auto* lse = mutable_trusted_data<float>(summary.log_sum_exp);
  auto* best = mutable_trusted_data<std::int64_t>(summary.best);
  at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, log_sum_exp<T>, begin, end, logits.size(1), in, lse, best);
  });
  return summary;
}

template <CpuIsa kIsa, typename T>
void cross_entropy_gradient(Tensor& logits, const Tensor& log_sum_exp, const Tensor& target, const Tensor& weight) {
  auto* in_place = mutable_trusted_data<T>(logits);
  const auto *lse = trusted_data<float>(log_sum_exp), *w = trusted_data<float>(weight);
  const auto* ids = trusted_data<std::int64_t>(target);
  at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    QUIVER_ON_ISA(kIsa, kernel, cross_entropy_gradient<T>, begin, end, logits.size(1), in_place, lse, ids, w);
  });
}

}  // namespace

void add_elementwise(Ops& column, CpuIsa isa, torch::Dtype dtype) {
  with_column(isa, dtype, [&]<CpuIsa kIsa, typename T>() {
    column.rms_norm = rms_norm<kIsa, T>;
    column.rms_norm_gradient = rms_norm_gradient<kIsa, T>;
    column.layer_norm = layer_norm<kIsa, T>;
    column.layer_norm_gradient = layer_norm_gradient<kIsa, T>;
    column.rotate_into = rotate_into<kIsa, T>;
    column.gated = gated<kIsa, T>;
    column.gated_gradient = gated_gradient<kIsa, T>;
    column.activated = activated<kIsa, T>;
    column.activated_gradient = activated_gradient<kIsa, T>;
    column.summarize_logits = summarize_logits<kIsa, T>;
    column.cross_entropy_gradient = cross_entropy_gradient<kIsa, T>;
  });
}

}  // namespace quiver::backend::cpu
