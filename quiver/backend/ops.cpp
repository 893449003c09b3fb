#include "quiver/backend/ops.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/backend/cpu/elementwise_isa.h"
#include "quiver/backend/row_parts.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"
#include "quiver/tensor/tensor.h"

namespace quiver::backend {
namespace {

using kernel::Bf16;
using tensor::mutable_raw_data;
using tensor::raw_data;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool has_kernel(const torch::Tensor& x) { return x.is_cpu() && (x.scalar_type() == torch::kFloat || x.scalar_type() == torch::kBFloat16); }

/// A contiguous result of x's shape and dtype, whatever x's strides.
torch::Tensor room_for(const torch::Tensor& x) { return x.new_empty(x.sizes()); }

/// Runs f<T>(begin, end) over [0, count) on all threads, T being the element type of `like`.
template <typename F>
void parallel_rows(const torch::Tensor& like, std::int64_t count, std::int64_t grain, F f) {
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    if (like.scalar_type() == torch::kFloat) {
      f(begin, end, float{});
    } else {
      f(begin, end, Bf16{});
    }
  });
}

constexpr std::int64_t kRowGrain = 16;
constexpr std::int64_t kElementGrain = 16384;

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
    const auto normed = rms_norm_rows(x, weight, epsilon);
    ctx->save_for_backward({x, weight, normed.inverse_rms});
    return normed.y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rms_norm_gradient(grads[0].contiguous(), saved[0], saved[1], saved[2], {}), torch::Tensor(), torch::Tensor()};
  }
};

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine) {
    ctx->save_for_backward({cosine, sine});
    auto y = torch::empty_like(x);
    rotate_into(x, cosine, sine, /*back=*/false, y);
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto dy = grads[0].contiguous();
    auto dx = torch::empty_like(dy);
    rotate_into(dy, saved[0], saved[1], /*back=*/true, dx);
    return {dx, torch::Tensor(), torch::Tensor()};
  }
};

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& gate, const torch::Tensor& up) {
    auto y = torch::empty_like(gate);
    parallel_rows(gate, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_ON_CPU(kernel, swiglu_forward<T>, begin, end, raw_data<T>(gate, "gate of swiglu", gate.sizes()),
                    raw_data<T>(up, "up of swiglu", gate.sizes()), mutable_raw_data<T>(y, "result of swiglu", gate.sizes()));
    });
    ctx->save_for_backward({gate, up});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto gradient = swiglu_gradient(grads[0].contiguous(), saved[0], saved[1]);
    return {gradient.gate, gradient.up};
  }
};

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  return has_kernel(x) ? RmsNormFunction::apply(x.contiguous(), weight, epsilon) : rms_norm_rows(x, weight, epsilon).y;
}

Normed rms_norm_rows(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  const StageTimer timer(Stage::kNorm);
  if (!has_kernel(x)) {
    const auto wide = x.to(tensor::compute_dtype(x.scalar_type()));
    const auto inverse = (wide.square().mean(-1) + epsilon).rsqrt();
    return {(wide * inverse.unsqueeze(-1) * weight.to(wide.scalar_type())).to(x.scalar_type()), inverse};
  }
  Normed normed{room_for(x), torch::empty({x.size(0)}, torch::kFloat)};
  const auto rows = x.size(0), dim = x.size(1);
  parallel_rows(x, rows, kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, rms_norm_forward<T>, begin, end, dim, static_cast<float>(epsilon), raw_data<T>(x, "x of rms_norm", {rows, dim}),
                  raw_data<float>(weight, "weight of rms_norm", {dim}), mutable_raw_data<T>(normed.y, "result of rms_norm", {rows, dim}),
                  mutable_raw_data<float>(normed.inverse_rms, "inverse_rms of rms_norm", {rows}));
  });
  return normed;
}

torch::Tensor rms_norm_gradient(const torch::Tensor& dy, const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& inverse_rms, const torch::Tensor& onto) {
  const StageTimer timer(Stage::kNorm);
  if (!has_kernel(x)) {  // with n = x / rms: dx = (w dy - n mean(w dy n)) / rms
    const auto wide = tensor::compute_dtype(x.scalar_type());
    const auto inverse = inverse_rms.to(wide).unsqueeze(1);
    const auto scaled = dy.to(wide) * weight.to(wide), n = x.to(wide) * inverse;
    const auto dx = ((scaled - n * (scaled * n).mean(-1, /*keepdim=*/true)) * inverse).to(x.scalar_type());
    return onto.defined() ? onto + dx : dx;
  }
  auto dx = room_for(x);
  const auto rows = x.size(0), dim = x.size(1);
  parallel_rows(x, rows, kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, rms_norm_backward<T>, begin, end, dim, raw_data<T>(dy, "dy of rms_norm_gradient", {rows, dim}),
                  raw_data<T>(x, "x of rms_norm_gradient", {rows, dim}), raw_data<float>(weight, "weight of rms_norm_gradient", {dim}),
                  raw_data<float>(inverse_rms, "inverse_rms of rms_norm_gradient", {rows}),
                  onto.defined() ? raw_data<T>(onto, "onto of rms_norm_gradient", {rows, dim}) : nullptr,
                  mutable_raw_data<T>(dx, "result of rms_norm_gradient", {rows, dim}));
  });
  return dx;
}

torch::Tensor rotate(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine) {
  if (has_kernel(x)) return RotateFunction::apply(x.contiguous(), cosine, sine);
  const auto wide = tensor::compute_dtype(x.scalar_type());
  const auto c = cosine.to(wide).unsqueeze(1), s = sine.to(wide).unsqueeze(1);  // [T, 1, D/2]
  const auto halves = x.to(wide).chunk(2, -1);
  return torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

void rotate_into(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, bool back, torch::Tensor out) {
  const StageTimer timer(Stage::kRotation);
  if (!has_kernel(x)) {
    out.copy_(rotate(x, cosine, back ? -sine : sine));
    return;
  }
  const auto rows = x.size(0), heads = x.size(1), dim = x.size(2);
  parallel_rows(x, rows, kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, rotate<T>, begin, end, heads, dim, back ? -1.0f : 1.0f, raw_data<T>(x, "x of rotate", {rows, heads, dim}),
                  raw_data<float>(cosine, "cosine of rotate", {rows, dim / 2}), raw_data<float>(sine, "sine of rotate", {rows, dim / 2}),
                  mutable_raw_data<T>(out, "out of rotate", {rows, heads, dim}));
  });
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  const StageTimer timer(Stage::kActivation);
  if (has_kernel(gate)) return SwigluFunction::apply(gate.contiguous(), up.contiguous());
  return torch::silu(gate) * up;
}

SwigluGradient swiglu_gradient(const torch::Tensor& dy, const torch::Tensor& gate, const torch::Tensor& up) {
  const StageTimer timer(Stage::kActivation);
  if (!has_kernel(gate)) {  // silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g)
    const auto s = gate.sigmoid();
    return {dy * up * s * (1 + gate * (1 - s)), dy * gate * s};
  }
  SwigluGradient gradient{room_for(gate), room_for(gate)};
  const auto sizes = gate.sizes();
  parallel_rows(gate, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, swiglu_backward<T>, begin, end, raw_data<T>(dy, "dy of swiglu_gradient", sizes),
                  raw_data<T>(gate, "gate of swiglu_gradient", sizes), raw_data<T>(up, "up of swiglu_gradient", sizes),
                  mutable_raw_data<T>(gradient.gate, "result of swiglu_gradient", sizes),
                  mutable_raw_data<T>(gradient.up, "result of swiglu_gradient", sizes));
  });
  return gradient;
}

LogitsSummary summarize_logits(const torch::Tensor& logits) {
  if (!has_kernel(logits)) {
    const auto wide = logits.scalar_type() == torch::kDouble ? logits : logits.to(torch::kFloat);
    return {wide.logsumexp(1), wide.argmax(1)};
  }
  auto lse = torch::empty({logits.size(0)}, torch::kFloat);
  auto best = torch::empty({logits.size(0)}, torch::kLong);
  const auto count = logits.size(0), vocab = logits.size(1);
  parallel_rows(logits, count, 1, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_ON_CPU(kernel, log_sum_exp<T>, begin, end, vocab, raw_data<T>(logits, "logits of log_sum_exp", {count, vocab}),
                  mutable_raw_data<float>(lse, "lse of log_sum_exp", {count}),
                  mutable_raw_data<std::int64_t>(best, "best of log_sum_exp", {count}));
  });
  return {lse, best};
}

torch::Tensor cross_entropy_into(torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& weight) {
  const StageTimer timer(Stage::kLoss);
  const auto [lse, best] = summarize_logits(logits);
  const auto picked = logits.gather(1, target.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
  auto terms = (lse - picked) * weight;
  if (has_kernel(logits)) {
    const auto count = logits.size(0), vocab = logits.size(1);
    parallel_rows(logits, count, 1, [&, lse = lse](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_ON_CPU(kernel, cross_entropy_gradient<T>, begin, end, vocab,
                    mutable_raw_data<T>(logits, "logits of head_loss", {count, vocab}), raw_data<float>(lse, "lse of head_loss", {count}),
                    raw_data<std::int64_t>(target, "target of head_loss", {count}),
                    raw_data<float>(weight, "weight of head_loss", {count}));
    });
  } else {
    auto gradient = (logits.to(lse.scalar_type()) - lse.unsqueeze(1)).exp();
    gradient.scatter_add_(1, target.unsqueeze(1), torch::full_like(lse, -1).unsqueeze(1));
    logits = (gradient * weight.unsqueeze(1)).to(logits.scalar_type());
  }
  return terms;
}

}  // namespace quiver::backend
