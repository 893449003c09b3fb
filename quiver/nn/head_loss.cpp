#include "quiver/nn/head_loss.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>

#include "quiver/backend/ops.h"
#include "quiver/backend/row_parts.h"
#include "quiver/tensor/tensor.h"

namespace quiver::nn {
namespace {

constexpr std::int64_t kLogitRows = 128;

torch::Dtype wide_dtype(const torch::Tensor& x) { return tensor::compute_dtype(x.scalar_type()); }

/// Parts of the rows of logits: some for every thread, none so large that its logits matter.
template <typename F>
void for_logit_parts(const torch::Tensor& hidden, const F& f) {
  const auto count = hidden.size(0);
  for (std::int64_t first = 0; first < count; first += kLogitRows * at::get_num_threads()) {
    const auto size = std::min<std::int64_t>(kLogitRows * at::get_num_threads(), count - first);
    backend::RowParts(size, hidden.is_cpu()).for_each([&](const backend::RowPart& part) { f(first + part.begin, part.size()); });
  }
}

}  // namespace

torch::Tensor Head::logits(const torch::Tensor& hidden) const {
  auto logits = linear.forward(hidden).contiguous();
  if (divisor != 1) logits.div_(divisor);
  if (cap > 0) logits.div_(cap).tanh_().mul_(cap);
  return logits;
}

HeadLoss head_loss_and_gradient(const torch::Tensor& hidden, const Head& head, const torch::Tensor& target, const torch::Tensor& weight) {
  const torch::NoGradGuard no_grad;
  HeadLoss result{0, torch::empty_like(hidden), torch::empty({hidden.size(0)}, hidden.options().dtype(wide_dtype(hidden)))};
  const auto targets = target.to(hidden.device());
  const auto weights = weight.to(hidden.device(), wide_dtype(hidden));
  auto losses = std::vector<double>(static_cast<std::size_t>(hidden.size(0)), 0.0);  // of a part, at its first row
  for_logit_parts(hidden, [&](std::int64_t first, std::int64_t count) {
    auto logits = head.logits(hidden.narrow(0, first, count));  // [count, V]
    torch::Tensor slope;                                        // of the logits in linear(hidden): (1 - (logit / cap)^2) / divisor
    if (head.cap > 0) slope = (1 - (logits.to(wide_dtype(logits)) / head.cap).square()) / head.divisor;
    const auto terms = backend::cross_entropy_into(logits, targets.narrow(0, first, count), weights.narrow(0, first, count));
    losses[static_cast<std::size_t>(first)] = terms.sum().item<double>();
    result.terms.narrow(0, first, count).copy_(terms);
    if (slope.defined())
      logits.mul_(slope);
    else if (head.divisor != 1)
      logits.div_(head.divisor);
    result.gradient.narrow(0, first, count).copy_(head.linear.weight().product_transposed(logits, {}));
  });
  for (const double loss : losses) result.loss += loss;
  return result;
}

TargetScores score_targets(const torch::Tensor& hidden, const Head& head, const torch::Tensor& target) {
  TargetScores scores{torch::empty({hidden.size(0)}, wide_dtype(hidden)), torch::empty({hidden.size(0)}, torch::kBool)};
  const auto wanted = target.to(hidden.device());
  for_logit_parts(hidden, [&](std::int64_t first, std::int64_t count) {
    const auto logits = head.logits(hidden.narrow(0, first, count));
    const auto [lse, best] = backend::summarize_logits(logits);
    const auto ids = wanted.narrow(0, first, count);
    const auto picked = logits.gather(1, ids.unsqueeze(1)).squeeze(1).to(lse.scalar_type());
    scores.log_prob.narrow(0, first, count).copy_(picked - lse);
    scores.is_greedy.narrow(0, first, count).copy_(best == ids);
  });
  return scores;
}

}  // namespace quiver::nn
