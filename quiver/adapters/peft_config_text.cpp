#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "quiver/adapters/peft_config.h"
#include "quiver/adapters/peft_names.h"
#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::adapters {
namespace {

using nlohmann::json;

/// 16 for 16.0: PEFT's ranks and alphas are integers as a rule, and some readers insist.
json as_json_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

/// The keys that every PEFT since 0.7 reads; newer ones are left to their defaults, because an older PEFT refuses keys
/// that it does not know.
json default_config() {
  return {{"alpha_pattern", json::object()},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", nullptr},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layers_pattern", nullptr},
          {"layers_to_transform", nullptr},
          {"lora_alpha", 8},
          {"lora_dropout", 0.0},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"r", 8},
          {"rank_pattern", json::object()},
          {"revision", nullptr},
          {"target_modules", nullptr},
          {"task_type", "CAUSAL_LM"},
          {"use_rslora", false}};
}

/// Rank and alpha of a pair, told with or without rank stabilisation.
struct PairSize {
  std::int64_t rank;
  double alpha;
};

/// How an adapter's pairs are told in a configuration: one use_rslora for all, and by module a rank and an alpha.
struct PairSizes {
  bool use_rslora;
  bool use_dora;
  bool has_bias;
  std::map<std::string, PairSize> by_module;
};

PairSizes sizes_of(const LoraAdapter& adapter) {
  PairSizes sizes{.use_rslora = std::ranges::all_of(adapter.pairs, [](const auto& e) { return e.second.use_rslora(); }),
                  .use_dora = std::ranges::any_of(adapter.pairs, [](const auto& e) { return e.second.magnitude().defined(); }),
                  .has_bias = std::ranges::any_of(adapter.pairs, [](const auto& e) { return e.second.bias().defined(); }),
                  .by_module = {}};
  for (const auto& [path, pair] : adapter.pairs) {
    const bool is_told_as_is = pair.use_rslora() == sizes.use_rslora;
    const auto alpha = is_told_as_is ? pair.alpha() : pair.scaling() / scaling(1.0, pair.rank(), sizes.use_rslora);
    sizes.by_module.emplace(module_of(path), PairSize{pair.rank(), alpha});
  }
  return sizes;
}

/// Replaces the entry only if it differs: 16.0 stays 16.0 where 16 is meant.
void set(json& config, const char* key, const json& value) {
  if (!config.contains(key) || config[key] != value) config[key] = value;
}

/// r, lora_alpha and their patterns. The options are the default if they are true of any pair at all.
void set_sizes(json& config, const LoraAdapter& adapter, const PairSizes& sizes, std::string_view origin) {
  const auto& options = adapter.options;
  auto usual = sizes.by_module.begin()->second;
  const bool was_loaded = !adapter.peft_config.empty();
  const auto& all = sizes.by_module;
  if (was_loaded || std::ranges::any_of(all, [&](const auto& e) { return e.second.rank == options.rank; })) {
    usual.rank = options.rank;
  }
  if (was_loaded || std::ranges::any_of(all, [&](const auto& e) { return e.second.alpha == options.alpha; })) {
    usual.alpha = options.alpha;
  }
  set(config, "r", usual.rank);
  set(config, "lora_alpha", as_json_number(usual.alpha));

  const auto parsed = parse_peft_config(io::dump_json(config, origin), origin);
  const bool patterns_hold = std::ranges::all_of(
      all, [&](const auto& e) { return parsed.rank_of(e.first) == e.second.rank && parsed.alpha_of(e.first) == e.second.alpha; });
  if (patterns_hold) return;
  auto ranks = json::object();
  auto alphas = json::object();
  for (const auto& [module, size] : all) {
    if (size.rank != usual.rank) ranks[module] = size.rank;
    if (size.alpha != usual.alpha) alphas[module] = as_json_number(size.alpha);
  }
  config["rank_pattern"] = ranks;
  config["alpha_pattern"] = alphas;
}

/// target_modules, and what narrows it: kept if they select every pair, else told anew.
void set_targets(json& config, const LoraAdapter& adapter, const PairSizes& sizes, std::string_view origin) {
  const auto parsed = parse_peft_config(io::dump_json(config, origin), origin);
  const auto& all = sizes.by_module;
  const bool targets_hold = config.contains("target_modules") && !config["target_modules"].is_null() &&
                            std::ranges::all_of(all, [&](const auto& e) { return parsed.selects(e.first); });
  if (targets_hold) return;
  const auto& targets = adapter.options.target_modules;
  const ModuleSelection wanted{targets, {}};
  if (targets == std::vector<std::string>{"all-linear"}) {
    config["target_modules"] = "all-linear";
  } else if (std::ranges::all_of(all, [&](const auto& e) { return wanted.matches(e.first); })) {
    auto names = targets;
    std::ranges::sort(names);
    config["target_modules"] = names;
  } else {
    config["target_modules"] = json::array();
    for (const auto& [module, size] : all) config["target_modules"].push_back(module);
  }
  for (const char* key : {"layers_to_transform", "layers_pattern", "exclude_modules"}) {
    if (config.contains(key)) config[key] = nullptr;
  }
}

/// Whether the base stores its weights as [in, out], which PEFT calls fan_in_fan_out: GPT-2, whose attention has these names.
bool is_of_gpt2(const LoraAdapter& adapter) {
  return std::ranges::any_of(adapter.pairs, [](const auto& e) { return e.first.find(".attn.c_") != std::string::npos; });
}

}  // namespace

std::string peft_config_text(const LoraAdapter& adapter) {
  const auto origin = format("the configuration of adapter '{}'", adapter.name);
  auto config = adapter.peft_config.empty() ? default_config() : io::parse_json(adapter.peft_config, origin);
  const auto sizes = sizes_of(adapter);
  if (adapter.peft_config.empty() && is_of_gpt2(adapter)) config["fan_in_fan_out"] = true;
  set(config, "use_rslora", sizes.use_rslora);
  set(config, "use_dora", sizes.use_dora);
  if (sizes.has_bias || config.contains("lora_bias")) set(config, "lora_bias", sizes.has_bias);
  set(config, "lora_dropout", adapter.options.dropout);
  set(config, "base_model_name_or_path", adapter.base_model.empty() ? json(nullptr) : json(adapter.base_model));
  set_sizes(config, adapter, sizes, origin);
  set_targets(config, adapter, sizes, origin);
  return io::dump_json(config, origin, /*indent=*/2);
}

}  // namespace quiver::adapters
