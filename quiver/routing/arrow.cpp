#include "quiver/routing/arrow.h"

#include <torch/torch.h>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {

torch::Tensor arrow_prototype(const lora::LoraPair& pair) {
  const torch::NoGradGuard no_grad;  // a prototype is data, not part of the graph
  const auto a = pair.lora_a().detach().to(torch::kCPU, torch::kDouble);
  const auto b = pair.lora_b().detach().to(torch::kCPU, torch::kDouble);
  if (!a.isfinite().all().item<bool>() || !b.isfinite().all().item<bool>()) {
    fail(ErrorKind::kUsage,
         "a LoRA pair with lora_a {} and lora_b {} holds NaN or infinite values: it has no Arrow prototype (did its training diverge?)",
         tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()));
  }
  // B A = Qb (Rb Ra^T) Qa^T: the small core holds every singular value of B A.
  const auto [q_a, r_a] = torch::linalg_qr(a.t());
  const auto [q_b, r_b] = torch::linalg_qr(b);
  const auto [u, s, vh] = torch::linalg_svd(r_b.matmul(r_a.t()), /*full_matrices=*/false);
  auto prototype = q_a.matmul(vh[0]);  // [d_in]
  prototype = prototype / prototype.norm();
  const auto largest = prototype[prototype.abs().argmax()].item<double>();
  return (largest < 0 ? -prototype : prototype).to(torch::kFloat);
}

ArrowRouter::ArrowRouter(torch::Tensor prototypes, const ArrowOptions& options) : options_(options) {
  if (!prototypes.defined() || prototypes.dim() != 2 || !prototypes.is_floating_point() || prototypes.numel() == 0) {
    fail(ErrorKind::kMismatch, "not Arrow prototypes: {}; expected a floating matrix [N, d_in], a row for each adapter",
         tensor::describe(prototypes));
  }
  prototypes_ = prototypes.detach().to(torch::kFloat).contiguous();
  if (options.top_k < 1) {
    fail(ErrorKind::kUsage, "top-k {} routes to no adapter: it must be at least 1", options.top_k);
  }
  if (options.top_k > num_adapters()) {
    fail(ErrorKind::kUsage, "top-k {} is larger than the library of {} adapters: choose a top-k of at most {}", options.top_k,
         num_adapters(), num_adapters());
  }
  if (!(options.temperature > 0)) {
    fail(ErrorKind::kUsage, "the temperature of Arrow's softmax is {}: it must be positive", options.temperature);
  }
  packed_ = pack_prototypes(prototypes_);
}

RoutingDecision ArrowRouter::route(const torch::Tensor& x) const {
  if (x.dim() != 2 || x.size(1) != prototypes_.size(1)) {
    fail(ErrorKind::kMismatch, "cannot route x {} by prototypes {}: expected x [T, {}]", tensor::describe(x), tensor::describe(prototypes_),
         prototypes_.size(1));
  }
  const torch::NoGradGuard no_grad;
  if (has_kernel(x)) return route_packed(packed_, x, options_.top_k, options_.temperature);

  const auto scores = x.to(torch::kFloat).matmul(prototypes_.to(x.device()).t()).abs();  // [T, N]
  // Sorting is stable where topk is not: equal scores keep the order of the adapters on every
  // device.
  const auto [sorted, order] = scores.sort(/*stable=*/true, /*dim=*/1, /*descending=*/true);
  const auto top = sorted.narrow(1, 0, options_.top_k);  // [T, k]
  return {order.narrow(1, 0, options_.top_k).contiguous(), ((top - top.narrow(1, 0, 1)) / options_.temperature).softmax(1)};
}

}  // namespace quiver::routing
