// Steps that sparse merges share: trimming, dropping, and means of the entries that agree in sign.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace quiver::merge {

/// The part of a merge that one adapter contributes, float64 and of the same shape for every index; called twice for each, so
/// that not all parts need exist at once.
using Parts = std::function<torch::Tensor(std::size_t index)>;

/// The disjoint mean of Yadav et al. 2023 (alg. 1): at every entry the sign of the sum over parts is elected, and the parts that
/// have that sign are averaged (those that are 0 have none). An entry whose sum is 0 becomes 0. count >= 1.
torch::Tensor disjoint_mean(std::size_t count, const Parts& part);

/// x, its entries of magnitude below `threshold` set to 0.
torch::Tensor trimmed(const torch::Tensor& x, double threshold);

/// 1 with probability `density`, else 0, float64 on the CPU; a function of its arguments alone. RandomStream(seed, name) is drawn
/// in row-major order.
torch::Tensor keep_mask(torch::IntArrayRef sizes, double density, std::uint64_t seed, std::string_view name);

}  // namespace quiver::merge
