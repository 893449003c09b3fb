#include "quiver/merge/dare.h"

#include <torch/utils.h>

#include <vector>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"
#include "quiver/merge/mean.h"
#include "quiver/merge/sparsify.h"
#include "quiver/merge/ties.h"
#include "quiver/tensor/tensor.h"

namespace quiver::merge {
namespace {

std::vector<adapters::LoraAdapter> dropped(std::span<const adapters::LoraAdapter> adapters, const DareOptions& options) {
  check_density(options.density);
  check_mixable(adapters, Agreement::kFactors);
  std::vector<adapters::LoraAdapter> sparse;
  for (const auto& adapter : adapters) sparse.push_back(drop_and_rescale(adapter, dare_masks(adapter, options), options.density));
  return sparse;
}

torch::Tensor masked(const torch::Tensor& factor, const torch::Tensor& mask, double density) {
  return (factor.to(torch::kDouble) * mask.to(factor.device(), torch::kDouble) / density).to(factor.scalar_type());
}

}  // namespace

AdapterMasks dare_masks(const adapters::LoraAdapter& adapter, const DareOptions& options) {
  check_density(options.density);
  AdapterMasks masks;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto name = "dare/" + adapter.name + "/" + path;
    masks[path] = {keep_mask(pair.lora_a().sizes(), options.density, options.seed, name + "/lora_a"),
                   keep_mask(pair.lora_b().sizes(), options.density, options.seed, name + "/lora_b")};
  }
  return masks;
}

adapters::LoraAdapter drop_and_rescale(const adapters::LoraAdapter& adapter, const AdapterMasks& masks, double density) {
  check_density(density);
  refuse_more_than_lora(adapter, "drop entries of");
  const torch::NoGradGuard no_grad;
  auto result = adapter;
  result.peft_config.clear();
  for (auto& [path, pair] : result.pairs) {
    const auto found = masks.find(path);
    if (found == masks.end()) {
      fail(ErrorKind::kMismatch, "no masks for adapter '{}' at {}: every path needs one for each factor", adapter.name, path);
    }
    const auto& [a, b] = found->second;
    if (!a.defined() || !b.defined() || a.sizes() != pair.lora_a().sizes() || b.sizes() != pair.lora_b().sizes()) {
      fail(ErrorKind::kMismatch, "the masks of adapter '{}' at {} are {} and {}; expected the shapes of its factors, {} and {}",
           adapter.name, path, tensor::describe(a), tensor::describe(b), tensor::describe(pair.lora_a()), tensor::describe(pair.lora_b()));
    }
    pair = pair.with_tensors({masked(pair.lora_a(), a, density), masked(pair.lora_b(), b, density)});
  }
  return result;
}

adapters::LoraAdapter dare(std::span<const adapters::LoraAdapter> adapters, const DareOptions& options) {
  return renamed(mean_of_factors(dropped(adapters, options)), "dare");
}

adapters::LoraAdapter dare_ties(std::span<const adapters::LoraAdapter> adapters, const DareOptions& options) {
  return renamed(ties(dropped(adapters, options), {.density = 1}), "dare_ties");
}

}  // namespace quiver::merge
