// What all static mixtures share: what is checked before adapters are mixed, and what a mixture inherits from them.
#pragma once

#include <torch/types.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quiver/adapters/lora.h"

namespace quiver::merge {

/// What the adapters of a mixture must agree on: d_in and d_out alone, or also the rank, or rank and scaling.
enum class Agreement { kShapes, kRanks, kFactors };

/// Throws kUsage for no adapters and for factors that are NaN or infinite, kUnsupported for a DoRA, and kMismatch
/// (naming two adapters) unless all have the same paths, agree as asked and, as far as known, have the same base.
void check_mixable(std::span<const adapters::LoraAdapter> adapters, Agreement agreement);
/// Throws kUsage unless there is one finite weight per adapter.
void check_weights(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights);
/// Throws kUsage unless density, the share of entries that a sparse merge keeps, is in (0, 1].
void check_density(double density);

/// 1 / count, count times.
std::vector<double> equal_weights(std::size_t count);

/// Singular values below this share of the largest are rounding, in float64.
inline constexpr double kSingularCutoff = 1e-10;

/// A mixture's name, base and options; its pairs are still to come.
adapters::LoraAdapter mixture_of(std::span<const adapters::LoraAdapter> adapters, const std::string& name);
/// The same adapter by another name.
adapters::LoraAdapter renamed(adapters::LoraAdapter adapter, const std::string& name);

/// The widest dtype of the adapters' factors at `path`.
torch::Dtype common_dtype(std::span<const adapters::LoraAdapter> adapters, const std::string& path);

/// An update as B A, without a scaling: a [R, d_in], b [d_out, R], float64.
struct Factors {
  torch::Tensor a;
  torch::Tensor b;
};
/// sum_i w_i scaling_i B_i A_i at `path`, as a = [A_1; ...; A_n] and b = [w_1 scaling_1 B_1, ..., w_n scaling_n B_n], on the
/// first adapter's device. Adapters of weight 0 are left out; if all are, one that changes nothing is left.
Factors stacked_products(std::span<const adapters::LoraAdapter> adapters, const std::string& path, std::span<const double> weights);

/// A pair of scaling 1, of the given dtype and on the given device.
adapters::LoraPair pair_of(const Factors& factors, torch::Device device, torch::Dtype dtype);

/// A mixture whose pairs have scaling 1, each made of the factors for its path, in their widest dtype and on the first adapter's device.
/// Its options have the largest rank. Without gradients: a mixture is data.
adapters::LoraAdapter mixture_of_products(std::span<const adapters::LoraAdapter> adapters, const std::string& name,
                                          const std::function<Factors(const std::string& path)>& factors);

}  // namespace quiver::merge
