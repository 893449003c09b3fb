#include "quiver/routing/directions.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/routing/checks.h"
#include "quiver/tensor/finite.h"
#include "quiver/tensor/tensor.h"

namespace quiver::routing {

RightSingular right_singular(const adapters::LoraPair& pair) {
  const torch::NoGradGuard no_grad;  // what routers look at is data, not part of the graph
  const auto a = pair.lora_a().detach().to(torch::kCPU, torch::kDouble);
  const auto b = pair.lora_b().detach().to(torch::kCPU, torch::kDouble);
  if (!tensor::all_finite(a) || !tensor::all_finite(b)) {
    fail(ErrorKind::kUsage,
         "a LoRA pair with lora_a {} and lora_b {} holds NaN or infinite values: it has no Arrow prototype (did its training diverge?)",
         tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()));
  }
  // B A = Qb (Rb Ra^T) Qa^T: the small core holds every singular value of B A.
  const auto [q_a, r_a] = torch::linalg_qr(a.t());
  const auto [q_b, r_b] = torch::linalg_qr(b);
  const auto [u, s, vh] = torch::linalg_svd(r_b.matmul(r_a.t()), /*full_matrices=*/true);
  auto vectors = vh.matmul(q_a.t());  // [r or d_in, d_in]
  vectors = vectors / vectors.norm(2, {1}, /*keepdim=*/true);
  const auto largest = vectors.gather(1, vectors.abs().argmax(1, /*keepdim=*/true));
  vectors = torch::where(largest < 0, -vectors, vectors);
  if (!a.any().item<bool>()) vectors = torch::zeros_like(vectors);  // a pair that reads nothing has no direction (adapters::complete)
  auto values = torch::zeros({vectors.size(0)}, torch::kDouble);
  values.narrow(0, 0, s.size(0)).copy_(s * std::abs(pair.scaling()));
  return {values, vectors};
}

torch::Tensor directions(const adapters::LoraPair& pair, std::int64_t components, double gamma) {
  const auto [values, vectors] = right_singular(pair);
  const auto count = components == 0 ? pair.rank() : components;
  auto rows = torch::zeros({count, pair.in_features()}, torch::kDouble);
  const auto present = std::min(count, vectors.size(0));
  const auto weight = gamma == 0 ? torch::ones({present}, torch::kDouble) : values.narrow(0, 0, present).pow(gamma);
  rows.narrow(0, 0, present).copy_(vectors.narrow(0, 0, present) * weight.unsqueeze(1));
  return rows.to(torch::kFloat);
}

std::map<std::string, torch::Tensor> stacked_directions(std::span<const adapters::LoraAdapter> adapters, std::int64_t components,
                                                        double gamma) {
  check_alike(adapters);
  std::map<std::string, torch::Tensor> stacked;
  for (const auto& [path, first] : adapters.front().pairs) {
    auto count = components;
    if (components == 0) {
      for (const auto& adapter : adapters) count = std::max(count, adapter.pairs.at(path).rank());
    }
    std::vector<torch::Tensor> rows;
    for (const auto& adapter : adapters) rows.push_back(directions(adapter.pairs.at(path), count, gamma));
    stacked.emplace(path, torch::stack(rows));
  }
  return stacked;
}

}  // namespace quiver::routing
