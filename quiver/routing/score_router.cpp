#include "quiver/routing/score_router.h"

#include <torch/utils.h>

#include <tuple>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/routing/choice.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {
namespace {

void check_vectors(const torch::Tensor& vectors, const ScoreRule& rule) {
  if (!vectors.defined() || vectors.dim() != 3 || !vectors.is_floating_point() || vectors.numel() == 0) {
    fail(ErrorKind::kMismatch, "not vectors to route by: {}; expected floating [N, c, d_in], c rows for each adapter",
         tensor::describe(vectors));
  }
  if (rule.is_signed && vectors.size(1) != 1) {
    fail(ErrorKind::kMismatch, "signed scores of {} components an adapter; expected one", vectors.size(1));
  }
}

torch::Tensor normalized(const torch::Tensor& x, InputNorm norm) {
  switch (norm) {
    case InputNorm::kNone: return x;
    case InputNorm::kUnit: return x / x.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
    case InputNorm::kLayerNorm: return torch::layer_norm(x, {x.size(1)}, {}, {}, 1e-5);
  }
  return x;
}

}  // namespace

torch::Tensor adapter_scores(const torch::Tensor& x, const torch::Tensor& vectors, const ScoreRule& rule) {
  check_vectors(vectors, rule);
  if (x.dim() != 2 || x.size(1) != vectors.size(2)) {
    fail(ErrorKind::kMismatch, "cannot score x {} by vectors {}: expected x [T, {}]", tensor::describe(x), tensor::describe(vectors),
         vectors.size(2));
  }
  const auto flat = vectors.to(x.device(), torch::kFloat).flatten(0, 1);         // [N c, d_in]
  auto products = normalized(x.to(torch::kFloat), rule.input).matmul(flat.t());  // [T, N c]
  if (rule.is_signed) return products;
  if (vectors.size(1) == 1) return products.abs();
  return products.view({x.size(0), vectors.size(0), vectors.size(1)}).norm(2, {2});
}

ScoreRouter::ScoreRouter(const torch::Tensor& vectors, const ScoreOptions& options, const Calibration& calibration,
                         std::shared_ptr<const GroupTable> bias)
    : options_(options), bias_(std::move(bias)) {
  check_vectors(vectors, options.rule);
  vectors_.rows = tensor::Placed(vectors.detach().to(torch::kCPU, torch::kFloat).contiguous());
  check_choice(options.top_k, options.temperature, num_adapters());
  check_bias(bias_.get(), num_adapters());
  std::tie(scale_, shift_) = affine_of(calibration, num_adapters());
  if (options.shortlist == 0) return;
  if (options.shortlist < options.top_k || options.shortlist > num_adapters()) {
    fail(ErrorKind::kUsage, "a shortlist of {} adapters for the {} best of {}; expected {} to {}", options.shortlist, options.top_k,
         num_adapters(), options.top_k, num_adapters());
  }
  if (options.rule.is_signed || options.rule.input != InputNorm::kNone) {
    fail(ErrorKind::kUsage, "a shortlist is made by |v . x|: it does not go with signed scores or normalised inputs");
  }
  const auto first = vectors_.rows.on_cpu().select(1, 0);
  shortlist_ = {.prototypes = backend::pack_prototypes(first / first.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-30)),
                .vectors = backend::pack_vectors(vectors_.rows.on_cpu()),
                .size = options.shortlist};
}

RoutingDecision ScoreRouter::decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const {
  const torch::NoGradGuard no_grad;
  if (shortlist_.size > 0 && options_.weighting == Weighting::kSoftmax) {
    const auto rows = bias_ == nullptr ? GroupTable::Rows() : bias_->rows();  // these stay while the table changes
    const std::span<const float> bias(rows.data(), static_cast<std::size_t>(rows.size() * num_adapters()));
    return backend::route_shortlisted(shortlist_, x, options_.top_k, options_.temperature, {scale_, shift_, bias, groups});
  }
  if (shortlist_.size == 0) return choose(adapter_scores(x, vectors_.rows.on(x.device()), options_.rule), {}, x.device(), groups);
  const auto candidates =
      std::get<0>(backend::route(shortlist_.prototypes, x, shortlist_.size, 1).index.sort(1));  // [T, m]; lower indices first
  return choose(backend::shrink_routed(shortlist_.vectors, x, candidates).norm(2, {2}), candidates, x.device(), groups);
}

/// From the scores [T, N] of all adapters, or those of the candidates [T, m] where these are defined.
RoutingDecision ScoreRouter::choose(torch::Tensor scores, const torch::Tensor& candidates, torch::Device device,
                                    std::span<const std::int32_t> groups) const {
  const auto of_candidates = [&](const torch::Tensor& of_all) {  // [N] or [T, N]
    const auto rows = of_all.expand({scores.size(0), num_adapters()});
    return candidates.defined() ? rows.gather(1, candidates) : rows;
  };
  if (scale_.defined()) scores = scores * of_candidates(scale_.on(device)) + of_candidates(shift_.on(device));
  if (bias_ != nullptr) scores = scores + of_candidates(group_rows(*bias_, groups, scores.size(0), device));
  auto decision = weigh(scores);
  if (candidates.defined()) decision.index = candidates.gather(1, decision.index);
  return decision;
}

RoutingDecision ScoreRouter::weigh(const torch::Tensor& scores) const {
  if (options_.weighting == Weighting::kSoftmax) return choose_softmax(scores, options_.top_k, options_.temperature);
  const auto top = top_scores(scores, options_.top_k);
  if (options_.weighting == Weighting::kEqual) return {top.index, torch::full_like(top.scores, 1.0 / static_cast<double>(options_.top_k))};
  const auto positive = top.scores.clamp_min(0);
  return {top.index, positive / positive.sum(1, /*keepdim=*/true).clamp_min(1e-30)};
}

}  // namespace quiver::routing
