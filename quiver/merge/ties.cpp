#include "quiver/merge/ties.h"

#include <torch/utils.h>

#include <vector>

#include "quiver/merge/common.h"
#include "quiver/merge/sparsify.h"
#include "quiver/tensor/quantile.h"

namespace quiver::merge {
namespace {

/// The magnitude below which entries of the adapter are trimmed.
double threshold_of(const adapters::LoraAdapter& adapter, double density) {
  std::vector<torch::Tensor> entries;
  for (const auto& [path, pair] : adapter.pairs) {
    for (const auto& factor : {pair.lora_a(), pair.lora_b()}) entries.push_back(factor.detach().to(torch::kCPU, torch::kDouble).flatten());
  }
  return tensor::magnitude_quantile(torch::cat(entries), 1 - density);
}

}  // namespace

adapters::LoraAdapter ties(std::span<const adapters::LoraAdapter> adapters, const TiesOptions& options) {
  check_density(options.density);
  check_mixable(adapters, Agreement::kFactors);
  const torch::NoGradGuard no_grad;
  std::vector<double> thresholds;
  for (const auto& adapter : adapters) thresholds.push_back(threshold_of(adapter, options.density));
  auto result = mixture_of(adapters, "ties");
  for (const auto& [path, first] : adapters.front().pairs) {
    const auto merged = [&, &key = path](auto factor_of) {
      const auto device = factor_of(adapters.front().pairs.at(key)).device();
      return disjoint_mean(adapters.size(), [&](std::size_t i) {
        return trimmed(factor_of(adapters[i].pairs.at(key)).to(device, torch::kDouble), thresholds[i]);
      });
    };
    const auto dtype = common_dtype(adapters, path);
    const auto lora_a = merged([](const adapters::LoraPair& pair) { return pair.lora_a(); });
    const auto lora_b = merged([](const adapters::LoraPair& pair) { return pair.lora_b(); });
    result.pairs.emplace(path, adapters::LoraPair(lora_a.to(dtype), lora_b.to(dtype), first.alpha(), first.use_rslora()));
  }
  return result;
}

}  // namespace quiver::merge
