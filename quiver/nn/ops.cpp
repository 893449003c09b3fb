#include "quiver/nn/ops.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>

#include "quiver/nn/kernels/elementwise_isa.h"
#include "quiver/tensor/cpu.h"

namespace quiver::nn {
namespace {

using kernel::Bf16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool has_kernel(const torch::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == torch::kFloat || x.scalar_type() == torch::kBFloat16);
}

/// Calls the kernel of this CPU: v4::name<T>(args...), ...
#define QUIVER_DISPATCH_ISA(name, T, ...)                                             \
  switch (tensor::cpu_isa()) {                                                        \
    case tensor::CpuIsa::kV4: kernel::v4::name<T>(__VA_ARGS__); break;                \
    case tensor::CpuIsa::kV3: kernel::v3::name<T>(__VA_ARGS__); break;                \
    case tensor::CpuIsa::kV2: kernel::v2::name<T>(__VA_ARGS__); break;                \
  }

template <typename T>
const T* data(const torch::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* out_data(const torch::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

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

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
    auto y = torch::empty_like(x);
    auto inverse = torch::empty({x.size(0)}, torch::kFloat);
    parallel_rows(x, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_DISPATCH_ISA(rms_norm_forward, T, begin, end, x.size(1), static_cast<float>(epsilon), data<T>(x),
                          data<float>(weight), out_data<T>(y), out_data<float>(inverse))
    });
    ctx->save_for_backward({x, weight, inverse});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& x = saved[0];
    const auto dy = grads[0].contiguous();
    auto dx = torch::empty_like(x);
    parallel_rows(x, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_DISPATCH_ISA(rms_norm_backward, T, begin, end, x.size(1), data<T>(dy), data<T>(x), data<float>(saved[1]),
                          data<float>(saved[2]), out_data<T>(dx))
    });
    return {dx, torch::Tensor(), torch::Tensor()};
  }
};

torch::Tensor rotate_by(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine, float sign) {
  auto y = torch::empty_like(x);
  parallel_rows(x, x.size(0), kRowGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_DISPATCH_ISA(rotate, T, begin, end, x.size(1), x.size(2), sign, data<T>(x), data<float>(cosine), data<float>(sine),
                        out_data<T>(y))
  });
  return y;
}

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& cosine,
                               const torch::Tensor& sine) {
    ctx->save_for_backward({cosine, sine});
    return rotate_by(x, cosine, sine, 1);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate_by(grads[0].contiguous(), saved[0], saved[1], -1), torch::Tensor(), torch::Tensor()};
  }
};

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& gate, const torch::Tensor& up) {
    auto y = torch::empty_like(gate);
    parallel_rows(gate, gate.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_DISPATCH_ISA(swiglu_forward, T, begin, end, data<T>(gate), data<T>(up), out_data<T>(y))
    });
    ctx->save_for_backward({gate, up});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto dy = grads[0].contiguous();
    auto dgate = torch::empty_like(saved[0]);
    auto dup = torch::empty_like(saved[1]);
    parallel_rows(dy, dy.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_DISPATCH_ISA(swiglu_backward, T, begin, end, data<T>(dy), data<T>(saved[0]), data<T>(saved[1]),
                          out_data<T>(dgate), out_data<T>(dup))
    });
    return {dgate, dup};
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
  parallel_rows(logits, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end, auto element) {
    using T = decltype(element);
    QUIVER_DISPATCH_ISA(log_sum_exp, T, begin, end, logits.size(1), data<T>(logits), out_data<float>(lse),
                        out_data<std::int64_t>(best))
  });
  return {lse, best};
}

/// Weighted negative log-likelihood of a chunk of rows; leaves weight * (softmax - onehot) in `logits`.
torch::Tensor chunk_loss(torch::Tensor& logits, const torch::Tensor& target, const torch::Tensor& weight) {
  const auto [lse, best] = reduce_logits(logits);
  const auto picked = logits.gather(1, target.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
  const auto loss = ((lse - picked) * weight).sum();
  if (has_kernel(logits)) {
    parallel_rows(logits, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end, auto element) {
      using T = decltype(element);
      QUIVER_DISPATCH_ISA(cross_entropy_gradient, T, begin, end, logits.size(1), out_data<T>(logits), data<float>(lse),
                          data<std::int64_t>(target), data<float>(weight))
    });
  } else {
    auto gradient = (logits.to(lse.scalar_type()) - lse.unsqueeze(1)).exp();
    gradient.scatter_add_(1, target.unsqueeze(1), torch::full_like(lse, -1).unsqueeze(1));
    logits = (gradient * weight.unsqueeze(1)).to(logits.scalar_type());
  }
  return loss;
}

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& hidden, const torch::Tensor& head,
                               const torch::Tensor& target, const torch::Tensor& weight) {
    const auto wide = hidden.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    auto loss = torch::zeros({}, hidden.options().dtype(wide));
    auto gradient = torch::empty_like(hidden);
    for (std::int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
      const auto count = std::min(kLogitRows, hidden.size(0) - first);
      auto logits = torch::linear(hidden.narrow(0, first, count), head);  // [count, V]
      loss += chunk_loss(logits, target.narrow(0, first, count), weight.narrow(0, first, count));
      auto rows = gradient.narrow(0, first, count);
      torch::mm_out(rows, logits, head);
    }
    ctx->save_for_backward({gradient});
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto gradient = ctx->get_saved_variables()[0];
    return {gradient * grads[0].to(gradient.scalar_type()), torch::Tensor(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon) {
  if (has_kernel(x)) return RmsNormFunction::apply(x.contiguous(), weight, epsilon);
  const auto wide = x.scalar_type() == torch::kDouble ? x : x.to(torch::kFloat);
  const auto inverse = (wide.square().mean(-1, /*keepdim=*/true) + epsilon).rsqrt();
  return (wide * inverse * weight.to(wide.scalar_type())).to(x.scalar_type());
}

torch::Tensor rotate(const torch::Tensor& x, const torch::Tensor& cosine, const torch::Tensor& sine) {
  if (has_kernel(x)) return RotateFunction::apply(x.contiguous(), cosine, sine);
  const auto wide = x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto c = cosine.to(wide).unsqueeze(1), s = sine.to(wide).unsqueeze(1);  // [T, 1, D/2]
  const auto halves = x.to(wide).chunk(2, -1);
  return torch::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  if (has_kernel(gate)) return SwigluFunction::apply(gate.contiguous(), up.contiguous());
  return torch::silu(gate) * up;
}

torch::Tensor head_loss(const torch::Tensor& hidden, const torch::Tensor& head, const torch::Tensor& target,
                        const torch::Tensor& weight) {
  const auto wide = hidden.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  return HeadLossFunction::apply(hidden, head, target.to(hidden.device()), weight.to(hidden.device(), wide));
}

TargetScores score_targets(const torch::Tensor& hidden, const torch::Tensor& head, const torch::Tensor& target) {
  const auto wide = hidden.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  TargetScores scores{torch::empty({hidden.size(0)}, wide), torch::empty({hidden.size(0)}, torch::kBool)};
  const auto wanted = target.to(hidden.device());
  for (std::int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
    const auto count = std::min(kLogitRows, hidden.size(0) - first);
    const auto logits = torch::linear(hidden.narrow(0, first, count), head);
    const auto [lse, best] = reduce_logits(logits);
    const auto ids = wanted.narrow(0, first, count);
    const auto picked = logits.gather(1, ids.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
    scores.log_prob.narrow(0, first, count).copy_(picked - lse);
    scores.is_greedy.narrow(0, first, count).copy_(best == ids);
  }
  return scores;
}

}  // namespace quiver::nn
