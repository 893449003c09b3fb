#include "quiver/merge/peft_merge.h"

#include <torch/utils.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"

namespace quiver::merge {
namespace {

bool drops(PeftCombination combination) { return combination == PeftCombination::kDareLinear || combination == PeftCombination::kDareTies; }

bool elects(PeftCombination combination) { return combination == PeftCombination::kTies || combination == PeftCombination::kDareTies; }

/// The floor(density * entries) largest entries of x, the rest 0.
torch::Tensor largest_entries(const torch::Tensor& x, double density) {
  if (density >= 1) return x;
  const auto kept = static_cast<std::int64_t>(density * static_cast<double>(x.numel()));
  const auto flat = x.flatten();
  const auto order = std::get<1>(flat.abs().sort(/*stable=*/true, /*dim=*/0, /*descending=*/true)).narrow(0, 0, kept);
  return torch::zeros_like(flat).index_copy(0, order, flat.index_select(0, order)).view_as(x);
}

/// sum_i c_i t_i, or the mean of those c_i t_i whose t_i has the elected sign. tasks [N, ...], c [N].
torch::Tensor combined(const torch::Tensor& tasks, const torch::Tensor& c, const PeftMergeOptions& options) {
  const auto weighted = tasks * c.view({-1, 1, 1});
  if (!elects(options.combination)) return weighted.sum(0);
  const auto votes = (options.majority_sign == MajoritySign::kTotal ? tasks : tasks.sign()).sum(0);
  const auto elected = torch::where(votes >= 0, 1.0, -1.0).to(tasks.scalar_type());
  const auto agrees = (tasks.sign() == elected).to(tasks.scalar_type());
  return (weighted * agrees).sum(0) / agrees.sum(0).clamp_min(1);
}

/// `adapters` are what dropping has left of them.
adapters::LoraAdapter merge_sparse(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                   const PeftMergeOptions& options) {
  return mixture_of_products(adapters, "peft_merge", [&](const std::string& path) {
    const auto device = adapters.front().pairs.at(path).lora_a().device();
    std::vector<torch::Tensor> a, b;
    std::vector<double> c_a, c_b;
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      const auto& pair = adapters[i].pairs.at(path);
      const double weight = weights[i] * pair.scaling();
      c_b.push_back(std::sqrt(std::abs(weight)));
      c_a.push_back(weight < 0 ? -c_b.back() : c_b.back());
      for (auto& [factors, factor] : {std::pair(&a, pair.lora_a()), std::pair(&b, pair.lora_b())}) {
        const auto wide = factor.to(device, torch::kDouble);
        const bool prunes = options.combination == PeftCombination::kTies || options.combination == PeftCombination::kMagnitudePrune;
        factors->push_back(prunes ? largest_entries(wide, options.density) : wide);
      }
    }
    const auto on_device = torch::TensorOptions().dtype(torch::kDouble).device(device);
    return Factors{combined(torch::stack(a), torch::tensor(c_a, on_device), options),
                   combined(torch::stack(b), torch::tensor(c_b, on_device), options)};
  });
}

}  // namespace

adapters::LoraAdapter peft_merge(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                 const PeftMergeOptions& options) {
  std::vector<AdapterMasks> masks;
  if (drops(options.combination)) {
    for (const auto& adapter : adapters) masks.push_back(dare_masks(adapter, {.density = options.density, .seed = options.seed}));
  }
  return peft_merge(adapters, weights, options, masks);
}

adapters::LoraAdapter peft_merge(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights,
                                 const PeftMergeOptions& options, std::span<const AdapterMasks> masks) {
  check_density(options.density);
  check_mixable(adapters, Agreement::kRanks);
  check_weights(adapters, weights);
  if (adapters.size() == 1) return merge_sparse(adapters, weights, {.combination = PeftCombination::kLinear});
  if (!drops(options.combination)) return merge_sparse(adapters, weights, options);
  if (masks.size() != adapters.size()) {
    fail(ErrorKind::kMismatch, "masks for {} adapters, of {}: give one set of masks per adapter", masks.size(), adapters.size());
  }
  std::vector<adapters::LoraAdapter> sparse;
  for (std::size_t i = 0; i < adapters.size(); ++i) sparse.push_back(drop_and_rescale(adapters[i], masks[i], options.density));
  return merge_sparse(sparse, weights, options);
}

}  // namespace quiver::merge
