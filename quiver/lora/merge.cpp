#include "quiver/lora/merge.h"

#include <torch/torch.h>

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::lora {
namespace {

/// What all adapters of a mixture must agree on.
enum class Agreement { kShapes, kFactors };

[[noreturn]] void fail_paths(const LoraAdapter& first, const LoraAdapter& other) {
  for (const auto& [path, pair] : first.pairs) {
    if (!other.pairs.contains(path)) {
      fail(ErrorKind::kMismatch, "cannot mix adapters '{}' and '{}': '{}' has no LoRA on {}", first.name, other.name, other.name, path);
    }
  }
  for (const auto& [path, pair] : other.pairs) {
    if (!first.pairs.contains(path)) {
      fail(ErrorKind::kMismatch, "cannot mix adapters '{}' and '{}': '{}' has no LoRA on {}", first.name, other.name, first.name, path);
    }
  }
  fail(ErrorKind::kInternal, "adapters '{}' and '{}' differ in no path", first.name, other.name);
}

void check_pair(const LoraAdapter& first, const LoraAdapter& other, const std::string& path, Agreement agreement) {
  const auto& a = first.pairs.at(path);
  const auto& b = other.pairs.at(path);
  if (a.in_features() != b.in_features() || a.out_features() != b.out_features()) {
    fail(ErrorKind::kMismatch, "cannot mix adapters '{}' and '{}': at {} one maps {} to {} features, the other {} to {}", first.name,
         other.name, path, a.in_features(), a.out_features(), b.in_features(), b.out_features());
  }
  if (agreement == Agreement::kShapes) return;
  if (a.rank() != b.rank()) {
    fail(ErrorKind::kMismatch,
         "cannot average the factors of adapters '{}' and '{}': at {} their ranks are {} and {} (average the products instead)", first.name,
         other.name, path, a.rank(), b.rank());
  }
  if (a.scaling() != b.scaling()) {
    fail(ErrorKind::kMismatch,
         "cannot average the factors of adapters '{}' and '{}': at {} their scalings are {} and {} (average the products instead)",
         first.name, other.name, path, a.scaling(), b.scaling());
  }
}

void check_mixable(std::span<const LoraAdapter> adapters, std::span<const double> weights, Agreement agreement) {
  if (adapters.empty()) fail(ErrorKind::kUsage, "no adapters to mix: give at least one");
  if (weights.size() != adapters.size()) {
    fail(ErrorKind::kUsage, "{} weights for {} adapters: give one weight per adapter", weights.size(), adapters.size());
  }
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    if (!std::isfinite(weights[i])) {
      fail(ErrorKind::kUsage, "the weight of adapter '{}' is {}: it must be finite", adapters[i].name, weights[i]);
    }
  }
  for (const auto& adapter : adapters) refuse_dora(adapter, "mix with others");
  const LoraAdapter* known_base = nullptr;
  for (const auto& adapter : adapters) {
    if (!adapter.base_fingerprint.empty()) {
      if (known_base == nullptr) known_base = &adapter;
      if (known_base->base_fingerprint != adapter.base_fingerprint) {
        fail(ErrorKind::kMismatch, "cannot mix adapters '{}' and '{}': they were trained on different bases, '{}' ({}) and '{}' ({})",
             known_base->name, adapter.name, known_base->base_model, known_base->base_fingerprint, adapter.base_model,
             adapter.base_fingerprint);
      }
    }
    const auto& first = adapters.front();
    bool same_paths = adapter.pairs.size() == first.pairs.size();
    for (const auto& [path, pair] : first.pairs) same_paths = same_paths && adapter.pairs.contains(path);
    if (!same_paths) fail_paths(first, adapter);
    for (const auto& [path, pair] : first.pairs) check_pair(first, adapter, path, agreement);
  }
}

/// A mixture's name, base and options; its pairs are still to come.
LoraAdapter mixture_of(std::span<const LoraAdapter> adapters, const std::string& name) {
  LoraAdapter result{.name = name, .options = adapters.front().options, .base_model = {}, .base_fingerprint = {}, .pairs = {}};
  for (const auto& adapter : adapters) {
    if (result.base_model.empty()) result.base_model = adapter.base_model;
    if (result.base_fingerprint.empty() && !adapter.base_fingerprint.empty()) {
      result.base_fingerprint = adapter.base_fingerprint;
      result.base_model = adapter.base_model;
    }
  }
  return result;
}

torch::Dtype common_dtype(std::span<const LoraAdapter> adapters, const std::string& path) {
  auto dtype = adapters.front().pairs.at(path).lora_a().scalar_type();
  for (const auto& adapter : adapters) {
    dtype = torch::promote_types(dtype, adapter.pairs.at(path).lora_a().scalar_type());
  }
  return dtype;
}

std::vector<double> equal_weights(std::size_t count) { return std::vector<double>(count, 1.0 / static_cast<double>(count)); }

}  // namespace

LoraAdapter weighted_factors(std::span<const LoraAdapter> adapters, std::span<const double> weights) {
  check_mixable(adapters, weights, Agreement::kFactors);
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
    result.pairs.emplace(path, LoraPair(lora_a.to(dtype), lora_b.to(dtype), first.alpha(), first.use_rslora()));
  }
  return result;
}

LoraAdapter mean_of_factors(std::span<const LoraAdapter> adapters) {
  auto result = weighted_factors(adapters, equal_weights(adapters.size()));
  result.name = "mean_of_factors";
  return result;
}

LoraAdapter weighted_products(std::span<const LoraAdapter> adapters, std::span<const double> weights) {
  check_mixable(adapters, weights, Agreement::kShapes);
  const torch::NoGradGuard no_grad;
  auto result = mixture_of(adapters, "weighted_products");
  std::int64_t widest = 1;
  for (const auto& [path, first] : adapters.front().pairs) {
    const auto dtype = common_dtype(adapters, path);
    std::vector<torch::Tensor> stacked_a;
    std::vector<torch::Tensor> stacked_b;
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      if (weights[i] == 0) continue;
      const auto pair = adapters[i].pairs.at(path).to(first.lora_a().device(), torch::kDouble);
      stacked_a.push_back(pair.lora_a());
      stacked_b.push_back(pair.lora_b() * (weights[i] * pair.scaling()));
    }
    if (stacked_a.empty()) {  // all weights are 0: an adapter that changes nothing
      stacked_a.push_back(torch::zeros_like(first.lora_a()));
      stacked_b.push_back(torch::zeros_like(first.lora_b()));
    }
    auto lora_a = torch::cat(stacked_a, 0).to(dtype);
    auto lora_b = torch::cat(stacked_b, 1).to(dtype);
    const auto rank = lora_a.size(0);
    widest = std::max(widest, rank);
    result.pairs.emplace(path, LoraPair(std::move(lora_a), std::move(lora_b), static_cast<double>(rank)));
  }
  result.options.rank = widest;
  result.options.alpha = static_cast<double>(widest);
  result.options.use_rslora = false;
  return result;
}

LoraAdapter mean_of_products(std::span<const LoraAdapter> adapters) {
  auto result = weighted_products(adapters, equal_weights(adapters.size()));
  result.name = "mean_of_products";
  return result;
}

torch::Tensor merged_weight(const torch::Tensor& weight, const LoraPair& pair) {
  if (weight.dim() != 2 || weight.size(0) != pair.out_features() || weight.size(1) != pair.in_features()) {
    fail(ErrorKind::kMismatch, "cannot merge a LoRA pair with delta_w [{}, {}] into a weight {}", pair.out_features(), pair.in_features(),
         tensor::describe(weight));
  }
  const torch::NoGradGuard no_grad;
  const auto common = torch::promote_types(weight.scalar_type(), pair.lora_a().scalar_type());
  const auto dtype = torch::promote_types(torch::kFloat, common);
  const auto wide = pair.to(weight.device(), dtype);
  auto merged = weight.to(dtype) + wide.delta();
  if (wide.magnitude().defined()) merged *= (wide.magnitude() / merged.norm(2, 1)).unsqueeze(1);
  return merged.to(weight.scalar_type());
}

}  // namespace quiver::lora
