#include "quiver/adapters/init.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/random.h"
#include "quiver/tensor/tensor.h"

namespace quiver::adapters {
namespace {

std::string last_name(const std::string& path) { return path.substr(path.rfind('.') + 1); }

[[noreturn]] void fail_target(const std::string& target, const nn::LinearMap& linears) {
  std::set<std::string> names;
  for (const auto& [path, linear] : linears) names.insert(last_name(path));
  std::string known;
  for (const auto& name : names) known += (known.empty() ? "" : ", ") + name;
  fail(ErrorKind::kNotFound, "target module '{}' selects no projection of the model; it has {}{}", target, known.empty() ? "none" : known,
       did_you_mean(target, {names.begin(), names.end()}));
}

double init_bound(LoraInit init, std::int64_t in_features) {
  const double kaiming = 1.0 / std::sqrt(static_cast<double>(in_features));
  return init == LoraInit::kPeft ? kaiming : kaiming * std::sqrt(1.0 / 3.0);
}

}  // namespace

bool is_target(const std::string& path, const std::string& target) {
  return target == "all-linear" || path == target || path.ends_with("." + target);
}

LoraAdapter initial_adapter(const std::string& name, const LoraOptions& options, const nn::LinearMap& linears, std::uint64_t seed,
                            LoraInit init) {
  check(options);
  for (const auto& target : options.target_modules) {
    const bool is_known = std::ranges::any_of(linears, [&](const auto& entry) { return is_target(entry.first, target); });
    if (!is_known) fail_target(target, linears);
  }
  LoraAdapter adapter{.name = name, .options = options, .base_model = {}, .base_fingerprint = {}, .pairs = {}};
  for (const auto& [path, linear] : linears) {
    const bool is_adapted =
        std::ranges::any_of(options.target_modules, [&path = path](const auto& target) { return is_target(path, target); });
    if (!is_adapted) continue;
    RandomStream random(seed, "init/" + path);
    const auto d_in = linear.in_features();
    auto lora_a = tensor::uniform({options.rank, d_in}, init_bound(init, d_in), random);
    auto lora_b = torch::zeros({linear.out_features(), options.rank}, torch::kFloat);
    torch::Tensor magnitude;
    if (options.use_dora) magnitude = linear.weight().dense().to(torch::kCPU, torch::kFloat).norm(2, 1);
    adapter.pairs.emplace(path, LoraPair(std::move(lora_a), std::move(lora_b), options.alpha, options.use_rslora, magnitude));
  }
  return adapter;
}

}  // namespace quiver::adapters
