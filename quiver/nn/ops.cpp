#include "quiver/nn/ops.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/base/profile.h"
#include "quiver/nn/kernels/elementwise_isa.h"
#include "quiver/nn/row_parts.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::nn {
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
constexpr std::int64_t kLogitRows = 128;

torch::Dtype wide_dtype(const torch::Tensor& x) { return x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat; }

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

/// Log-sum-exp and argmax of each row of contiguous logits.
std::pair<torch::Tensor, torch::Tensor> reduce_logits(const torch::Tensor& logits) {
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

/// Weighted negative log-likelihoods of some rows; leaves weight * (softmax - onehot) in `logits`.
torch::Tensor logits_loss(torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& weight) {
  const StageTimer timer(Stage::kLoss);
  const auto [lse, best] = reduce_logits(logits);
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

struct ProjectionHolder : torch::CustomClassHolder {
  explicit ProjectionHolder(const Projection* p) : projection(p) {}
  const Projection* projection;  // used within forward only
};

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& hidden, const c10::intrusive_ptr<ProjectionHolder>& head,
                               const torch::Tensor& target, const torch::Tensor& weight) {
    const auto result = head_loss_and_gradient(hidden, *head->projection, target, weight);
    ctx->save_for_backward({result.gradient});
    return torch::full({}, result.loss, hidden.options().dtype(wide_dtype(hidden)).requires_grad(false));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto gradient = ctx->get_saved_variables()[0];
    return {gradient * grads[0].to(gradient.scalar_type()), torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

/// Parts of the rows of logits: some for every thread, none so large that its logits matter.
template <typename F>
void for_logit_parts(const torch::Tensor& hidden, const F& f) {
  const auto count = hidden.size(0);
  for (std::int64_t first = 0; first < count; first += kLogitRows * at::get_num_threads()) {
    const auto size = std::min<std::int64_t>(kLogitRows * at::get_num_threads(), count - first);
    RowParts(size, hidden.is_cpu()).for_each([&](const RowPart& part) { f(first + part.begin, part.size()); });
  }
}

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  return has_kernel(x) ? RmsNormFunction::apply(x.contiguous(), weight, epsilon) : rms_norm_rows(x, weight, epsilon).y;
}

Normed rms_norm_rows(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  const StageTimer timer(Stage::kNorm);
  if (!has_kernel(x)) {
    const auto wide = x.to(wide_dtype(x));
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
    const auto wide = wide_dtype(x);
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
  const auto wide = wide_dtype(x);
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

HeadLoss head_loss_and_gradient(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target,
                                const torch::Tensor& weight) {
  const torch::NoGradGuard no_grad;
  HeadLoss result{0, torch::empty_like(hidden), torch::empty({hidden.size(0)}, hidden.options().dtype(wide_dtype(hidden)))};
  const auto targets = target.to(hidden.device());
  const auto weights = weight.to(hidden.device(), wide_dtype(hidden));
  auto losses = std::vector<double>(static_cast<std::size_t>(hidden.size(0)), 0.0);  // of a part, at its first row
  for_logit_parts(hidden, [&](std::int64_t first, std::int64_t count) {
    auto logits = head.forward(hidden.narrow(0, first, count)).contiguous();  // [count, V]
    const auto terms = logits_loss(logits, targets.narrow(0, first, count), weights.narrow(0, first, count));
    losses[static_cast<std::size_t>(first)] = terms.sum().item<double>();
    result.terms.narrow(0, first, count).copy_(terms);
    result.gradient.narrow(0, first, count).copy_(head.backward(logits));
  });
  for (const double loss : losses) result.loss += loss;
  return result;
}

torch::Tensor head_loss(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target, const torch::Tensor& weight) {
  return HeadLossFunction::apply(hidden, c10::make_intrusive<ProjectionHolder>(&head), target, weight);
}

TargetScores score_targets(const torch::Tensor& hidden, const Projection& head, const torch::Tensor& target) {
  TargetScores scores{torch::empty({hidden.size(0)}, wide_dtype(hidden)), torch::empty({hidden.size(0)}, torch::kBool)};
  const auto wanted = target.to(hidden.device());
  for_logit_parts(hidden, [&](std::int64_t first, std::int64_t count) {
    const auto logits = head.forward(hidden.narrow(0, first, count)).contiguous();
    const auto [lse, best] = reduce_logits(logits);
    const auto ids = wanted.narrow(0, first, count);
    const auto picked = logits.gather(1, ids.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
    scores.log_prob.narrow(0, first, count).copy_(picked - lse);
    scores.is_greedy.narrow(0, first, count).copy_(best == ids);
  });
  return scores;
}

}  // namespace quiver::nn
