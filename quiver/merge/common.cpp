#include "quiver/merge/common.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::merge {
namespace {

[[noreturn]] void fail_paths(const adapters::LoraAdapter& first, const adapters::LoraAdapter& other) {
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

void check_pair(const adapters::LoraAdapter& first, const adapters::LoraAdapter& other, const std::string& path, Agreement agreement) {
  const auto& a = first.pairs.at(path);
  const auto& b = other.pairs.at(path);
  if (a.in_features() != b.in_features() || a.out_features() != b.out_features()) {
    fail(ErrorKind::kMismatch, "cannot mix adapters '{}' and '{}': at {} one maps {} to {} features, the other {} to {}", first.name,
         other.name, path, a.in_features(), a.out_features(), b.in_features(), b.out_features());
  }
  if (agreement == Agreement::kShapes) return;
  if (a.rank() != b.rank()) {
    fail(ErrorKind::kMismatch,
         "cannot mix the factors of adapters '{}' and '{}': at {} their ranks are {} and {} (mix the products instead)", first.name,
         other.name, path, a.rank(), b.rank());
  }
  if (agreement == Agreement::kFactors && a.scaling() != b.scaling()) {
    fail(ErrorKind::kMismatch,
         "cannot mix the factors of adapters '{}' and '{}': at {} their scalings are {} and {} (mix the products instead)", first.name,
         other.name, path, a.scaling(), b.scaling());
  }
}

}  // namespace

void check_mixable(std::span<const adapters::LoraAdapter> adapters, Agreement agreement) {
  if (adapters.empty()) fail(ErrorKind::kUsage, "no adapters to mix: give at least one");
  for (const auto& adapter : adapters) refuse_more_than_lora(adapter, "mix with others");
  const adapters::LoraAdapter* known_base = nullptr;
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
    refuse_not_finite(adapter, "mix with others");
  }
}

void check_weights(std::span<const adapters::LoraAdapter> adapters, std::span<const double> weights) {
  if (weights.size() != adapters.size()) {
    fail(ErrorKind::kUsage, "{} weights for {} adapters: give one weight per adapter", weights.size(), adapters.size());
  }
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    if (!std::isfinite(weights[i])) {
      fail(ErrorKind::kUsage, "the weight of adapter '{}' is {}: it must be finite", adapters[i].name, weights[i]);
    }
  }
}

void check_density(double density) {
  if (!(density > 0 && density <= 1)) {
    fail(ErrorKind::kUsage, "density {} is not a share of the entries to keep: it must be in (0, 1]", density);
  }
}

std::vector<double> equal_weights(std::size_t count) { return std::vector<double>(count, 1.0 / static_cast<double>(count)); }

adapters::LoraAdapter mixture_of(std::span<const adapters::LoraAdapter> adapters, const std::string& name) {
  adapters::LoraAdapter result{.name = name, .options = adapters.front().options, .base_model = {}, .base_fingerprint = {}, .pairs = {}};
  for (const auto& adapter : adapters) {
    if (result.base_model.empty()) result.base_model = adapter.base_model;
    if (result.base_fingerprint.empty() && !adapter.base_fingerprint.empty()) {
      result.base_fingerprint = adapter.base_fingerprint;
      result.base_model = adapter.base_model;
    }
  }
  const auto& format = adapters.front().prompt_format;
  if (std::ranges::all_of(adapters, [&](const adapters::LoraAdapter& a) { return a.prompt_format == format; }))
    result.prompt_format = format;
  return result;
}

adapters::LoraAdapter renamed(adapters::LoraAdapter adapter, const std::string& name) {
  adapter.name = name;
  return adapter;
}

torch::Dtype common_dtype(std::span<const adapters::LoraAdapter> adapters, const std::string& path) {
  auto dtype = adapters.front().pairs.at(path).lora_a().scalar_type();
  for (const auto& adapter : adapters) {
    dtype = torch::promote_types(dtype, adapter.pairs.at(path).lora_a().scalar_type());
  }
  return dtype;
}

Factors stacked_products(std::span<const adapters::LoraAdapter> adapters, const std::string& path, std::span<const double> weights) {
  const auto& first = adapters.front().pairs.at(path);
  std::vector<torch::Tensor> stacked_a;
  std::vector<torch::Tensor> stacked_b;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    if (weights[i] == 0) continue;
    const auto pair = adapters[i].pairs.at(path).to(first.lora_a().device(), torch::kDouble);
    stacked_a.push_back(pair.lora_a());
    stacked_b.push_back(pair.lora_b() * (weights[i] * pair.scaling()));
  }
  if (stacked_a.empty()) {
    const auto pair = first.to(first.lora_a().device(), torch::kDouble);
    return {torch::zeros_like(pair.lora_a()), torch::zeros_like(pair.lora_b())};
  }
  return {torch::cat(stacked_a, 0), torch::cat(stacked_b, 1)};
}

adapters::LoraPair pair_of(const Factors& factors, torch::Device device, torch::Dtype dtype) {
  const auto rank = static_cast<double>(factors.a.size(0));
  return adapters::LoraPair(factors.a.to(device, dtype).contiguous(), factors.b.to(device, dtype).contiguous(), rank);
}

adapters::LoraAdapter mixture_of_products(std::span<const adapters::LoraAdapter> adapters, const std::string& name,
                                          const std::function<Factors(const std::string& path)>& factors) {
  const torch::NoGradGuard no_grad;
  auto mixture = mixture_of(adapters, name);
  std::int64_t widest = 1;
  for (const auto& [path, first] : adapters.front().pairs) {
    const auto pair = pair_of(factors(path), first.lora_a().device(), common_dtype(adapters, path));
    widest = std::max(widest, pair.rank());
    mixture.pairs.emplace(path, pair);
  }
  mixture.options.rank = widest;
  mixture.options.alpha = static_cast<double>(widest);
  mixture.options.use_rslora = false;
  return mixture;
}

}  // namespace quiver::merge
