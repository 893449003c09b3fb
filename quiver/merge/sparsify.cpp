#include "quiver/merge/sparsify.h"

#include <torch/utils.h>

#include "quiver/base/random.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::merge {

torch::Tensor disjoint_mean(std::size_t count, const Parts& part) {
  auto sum = part(0).clone();
  for (std::size_t i = 1; i < count; ++i) sum += part(i);
  const auto elected = sum.sign();
  auto total = torch::zeros_like(sum);
  auto voters = torch::zeros_like(sum);
  for (std::size_t i = 0; i < count; ++i) {
    const auto x = part(i);
    const auto agrees = (x.sign() == elected).logical_and(x != 0).to(torch::kDouble);
    total += x * agrees;
    voters += agrees;
  }
  return total / voters.clamp_min(1);
}

torch::Tensor trimmed(const torch::Tensor& x, double threshold) { return torch::where(x.abs() >= threshold, x, torch::zeros_like(x)); }

torch::Tensor keep_mask(torch::IntArrayRef sizes, double density, std::uint64_t seed, std::string_view name) {
  RandomStream random(seed, name);
  auto mask = torch::empty(sizes, torch::kDouble);
  for (auto& value : tensor::mutable_elements<double>(mask, "a mask")) value = random.uniform() < density ? 1 : 0;
  return mask;
}

}  // namespace quiver::merge
