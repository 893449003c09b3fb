#include "quiver/merge/mean.h"

#include <torch/utils.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/merge/common.h"
#include "quiver/tensor/tensor.h"

namespace quiver::merge {

adapters::LoraAdapter weighted_factors(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights) {
  check_mixable(adapters, Agreement::kFactors);
  check_weights(adapters, weights);
  const torch::NoGradGuard no_grad;  // a mixture is data
  auto result = mixture_of(adapters, "weighted_factors");
  for (const auto& [path, first] : adapters.front().pairs) {
    auto lora_a = torch::zeros(first.lora_a().sizes(), first.lora_a().options().dtype(torch::kDouble));
    auto lora_b = torch::zeros(first.lora_b().sizes(), first.lora_b().options().dtype(torch::kDouble));
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      if (weights[i] == 0) continue;
      const auto pair = adapters[i].pairs.at(path).to(lora_a.device(), torch::kDouble);
      lora_a.add_(pair.lora_a(), weights[i]);
      lora_b.add_(pair.lora_b(), weights[i]);
    }
    const auto dtype = common_dtype(adapters, path);
    result.pairs.emplace(path, adapters::LoraPair(lora_a.to(dtype), lora_b.to(dtype), first.alpha(), first.use_rslora()));
  }
  return result;
}

adapters::LoraAdapter mean_of_factors(std::span<const adapters::LoraAdapter> adapters) {
  return renamed(weighted_factors(adapters, equal_weights(adapters.size())), "mean_of_factors");
}

adapters::LoraAdapter weighted_products(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights) {
  check_mixable(adapters, Agreement::kShapes);
  check_weights(adapters, weights);
  return mixture_of_products(adapters, "weighted_products",
                             [&](const std::string& path) { return stacked_products(adapters, path, weights); });
}

adapters::LoraAdapter mean_of_products(std::span<const adapters::LoraAdapter> adapters) {
  return renamed(weighted_products(adapters, equal_weights(adapters.size())), "mean_of_products");
}

adapters::LoraAdapter task_arithmetic(std::span<const adapters::LoraAdapter> adapters, double lambda) {
  if (!std::isfinite(lambda)) fail(ErrorKind::kUsage, "task arithmetic's lambda is {}: it must be finite", lambda);
  return renamed(weighted_products(adapters, std::vector<double>(adapters.size(), lambda)), "task_arithmetic");
}

}  // namespace quiver::merge
