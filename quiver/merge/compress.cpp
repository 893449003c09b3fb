#include "quiver/merge/compress.h"

#include <torch/utils.h>

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"
#include "quiver/tensor/finite.h"

namespace quiver::merge {
namespace {

void check_rank(std::int64_t rank) {
  if (rank < 1) fail(ErrorKind::kUsage, "cannot compress an update to rank {}: the rank must be at least 1", rank);
}

/// The first `rank` singular values of b a.
Factors truncated(const Factors& factors, std::int64_t rank) {
  const auto [q_a, r_a] = torch::linalg_qr(factors.a.to(torch::kCPU).t());
  const auto [q_b, r_b] = torch::linalg_qr(factors.b.to(torch::kCPU));
  const auto [u, s, vh] = torch::linalg_svd(r_b.matmul(r_a.t()), /*full_matrices=*/false);
  const auto kept = std::min(rank, s.size(0));
  auto a = vh.narrow(0, 0, kept).matmul(q_a.t());
  auto b = q_b.matmul(u.narrow(1, 0, kept) * s.narrow(0, 0, kept));
  // An SVD leaves the signs open.
  const auto largest = a.gather(1, a.abs().argmax(1, /*keepdim=*/true));  // [k, 1]
  const auto sign = torch::where(largest < 0, -1.0, 1.0).to(torch::kDouble);
  return {a * sign, b * sign.t()};
}

}  // namespace

adapters::LoraPair compressed(const adapters::LoraPair& pair, std::int64_t rank) {
  check_rank(rank);
  if (pair.magnitude().defined()) fail(ErrorKind::kUnsupported, "a DoRA's update depends on the weight: it cannot be compressed");
  if (!tensor::all_finite(pair.lora_a()) || !tensor::all_finite(pair.lora_b())) {
    fail(ErrorKind::kUsage, "a LoRA pair that holds NaN or infinite values cannot be compressed (did its training diverge?)");
  }
  const torch::NoGradGuard no_grad;
  const auto wide = pair.to(torch::kCPU, torch::kDouble);
  return pair_of(truncated({wide.lora_a(), wide.lora_b() * wide.scaling()}, rank), pair.lora_a().device(), pair.lora_a().scalar_type());
}

adapters::LoraAdapter compressed(const adapters::LoraAdapter& adapter, std::int64_t rank) {
  const double whole[] = {1};
  return renamed(compressed_products(std::span(&adapter, 1), whole, rank), adapter.name);
}

adapters::LoraAdapter compressed_products(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                          std::int64_t rank) {
  check_rank(rank);
  check_mixable(adapters, Agreement::kShapes);
  check_weights(adapters, weights);
  return mixture_of_products(adapters, "compressed_products",
                             [&](const std::string& path) { return truncated(stacked_products(adapters, path, weights), rank); });
}

}  // namespace quiver::merge
