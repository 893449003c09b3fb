// Whether an adapter fits a model: shapes, bases, and what its configuration selects.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/peft_config.h"
#include "quiver/adapters/peft_names.h"
#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/utf8.h"
#include "quiver/io/hub_cache.h"
#include "quiver/regex/pattern.h"

namespace quiver::adapters {
namespace {

namespace fs = std::filesystem;

/// A base's name, reduced to what base_names_differ compares; empty if it tells nothing.
std::string essential_name(const std::string& name) {
  std::string last;
  for (const auto& part : fs::path(name)) {
    if (part.empty() || part == "." || part == "..") continue;
    const auto text = part.string();
    if (const auto model = io::hub_model_name(text)) return essential_name(*model);
    last = text;
  }
  std::ranges::transform(last, last.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  // The endings of packed copies. Possessive repeats keep the search linear, and lose no match: what "(?:_[0-9a-z]+)*+" takes, the
  // alternatives would have to take, too.
  static const regex::Pattern packing(
      "(?:[-._](?:i?q[0-9]+(?:_[0-9a-z]+)*+|bf16|f16|fp16|f32|fp32|fp8|(?:unsloth-)?bnb-[48]bit|gguf|gptq|awq|int[48]|[48]bit))+\\z",
      "names of bases");
  last = replace_invalid_utf8(last);
  std::vector<regex::Match> endings;
  packing.find_all(last, endings);
  return endings.empty() ? last : last.substr(0, static_cast<std::size_t>(endings.front().begin));
}

bool selects_any(const PeftConfig& config, const std::string& path) {
  return std::ranges::any_of(modules_of(path), [&](const auto& module) { return config.selects(module); });
}

/// Keys that match none of the paths.
template <typename Value>
std::vector<std::string> idle_keys(const std::vector<ModulePattern<Value>>& patterns, const std::vector<std::string>& paths) {
  std::vector<std::string> idle;
  for (const auto& entry : patterns) {
    const bool is_used = std::ranges::any_of(paths, [&](const auto& path) {
      return std::ranges::any_of(modules_of(path), [&](const auto& module) { return entry.pattern.match(module); });
    });
    if (!is_used) idle.push_back(regex::excerpt(entry.key));
  }
  return idle;
}

/// The warning of keys that match no projection the adapter targets, if there are any.
template <typename Value>
void warn_of_keys(const std::vector<ModulePattern<Value>>& patterns, const char* table, const std::vector<std::string>& targeted,
                  const std::string& name, std::vector<std::string>& warnings) {
  const auto idle = idle_keys(patterns, targeted);
  if (idle.empty()) return;
  warnings.push_back(format("warning: adapter '{}' has {} keys in {} that match none of its target modules, and do nothing: {}", name,
                            idle.size(), table, listed(idle)));
}

/// Every module of the model as far as projections tell: themselves, what holds them, and what stands beside the layers.
std::vector<std::string> all_modules(const nn::LinearMap& projections) {
  std::set<std::string> modules = {"lm_head", "model", "model.embed_tokens", "model.norm", "model.rotary_emb"};
  for (const auto& [path, projection] : projections) {
    for (const auto& module : modules_of(path)) {
      for (auto end = module.size(); end != std::string::npos; end = module.rfind('.', end - 1)) modules.insert(module.substr(0, end));
    }
  }
  return {modules.begin(), modules.end()};
}

}  // namespace

bool base_names_differ(const std::string& a, const std::string& b) {
  const auto name_a = essential_name(a);
  const auto name_b = essential_name(b);
  return !name_a.empty() && !name_b.empty() && name_a != name_b;
}

std::optional<std::string> check_fits(const LoraAdapter& adapter, const nn::LinearMap& projections, const std::string& base_name,
                                      const std::string& base_fingerprint, bool allow_other_base, const MapSizes& outer) {
  std::vector<std::string> unknown;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto found = projections.find(path);
    const auto found_outer = outer.find(path);
    if (found == projections.end() && found_outer == outer.end()) {
      unknown.push_back(path);
      continue;
    }
    const auto size = found == projections.end() ? found_outer->second : MapSize{found->second.in_features(), found->second.out_features()};
    if (size.in != pair.in_features() || size.out != pair.out_features()) {
      fail(ErrorKind::kMismatch,
           "adapter '{}' does not fit model '{}': at {} it maps {} to {} features, the model maps {} to {} (was it trained on another "
           "base, '{}'?)",
           adapter.name, base_name, path, pair.in_features(), pair.out_features(), size.in, size.out, adapter.base_model);
    }
  }
  for (const char* whole : {"lm_head", "embed_tokens"}) {
    if (std::ranges::find(unknown, whole) != unknown.end()) {
      fail(ErrorKind::kUnsupported, "adapter '{}' adapts {}, which is not supported; expected linear maps of the blocks", adapter.name,
           whole);
    }
  }
  if (!unknown.empty()) {
    std::vector<std::string> known;
    for (const auto& [path, projection] : projections) known.push_back(path);
    fail(ErrorKind::kMismatch, "adapter '{}' does not fit model '{}': the model has no projection {}{}; its base is '{}'", adapter.name,
         base_name, listed(unknown), did_you_mean(unknown.front(), known), adapter.base_model);
  }
  if (allow_other_base) return std::nullopt;
  const bool both_known = !adapter.base_fingerprint.empty() && !base_fingerprint.empty();
  if (both_known && adapter.base_fingerprint != base_fingerprint) {
    fail(ErrorKind::kMismatch,
         "adapter '{}' was trained on another base: '{}' with fingerprint {}, the model is '{}' with fingerprint {} (load that base, or "
         "allow_other_base if you know that it serves)",
         adapter.name, adapter.base_model, adapter.base_fingerprint, base_name, base_fingerprint);
  }
  if (both_known || !base_names_differ(adapter.base_model, base_name)) return std::nullopt;
  return format("warning: adapter '{}' names base '{}', the model is called '{}'; its shapes fit", adapter.name, adapter.base_model,
                base_name);
}

LoadReport load_report(const LoraAdapter& adapter) {
  LoadReport report;
  std::vector<std::string> paths;
  for (const auto& [path, pair] : adapter.pairs) {
    const auto* kind = pair.magnitude().defined() ? "DoRA" : pair.bias().defined() ? "LoRA with bias" : "LoRA";
    report.projections.push_back({path, pair.rank(), pair.alpha(), pair.scaling(), kind, c10::toString(pair.lora_a().scalar_type())});
    paths.push_back(path);
  }
  for (const auto& [name, weight] : adapter.whole) report.whole.push_back(name);
  for (const auto& [path, rows] : adapter.tokens) report.whole.push_back(format("{} rows of {}", rows.tokens.size(), path));
  if (adapter.peft_config.empty()) return report;
  const auto config = parse_peft_config(adapter.peft_config, format("the configuration of adapter '{}'", adapter.name));
  for (const auto& key : config.unknown_keys) report.unused.push_back(format("unknown key {}", key));
  for (const auto& key : idle_keys(config.rank_pattern, paths)) report.unused.push_back(format("rank_pattern '{}' matches no tensor", key));
  for (const auto& key : idle_keys(config.alpha_pattern, paths))
    report.unused.push_back(format("alpha_pattern '{}' matches no tensor", key));
  if (!config.target_modules) return report;
  for (const auto& tail : config.target_modules->tails) {
    const ModuleSelection one{{tail}, {}};
    const bool is_used = std::ranges::any_of(paths, [&](const auto& path) {
      return std::ranges::any_of(modules_of(path), [&](const auto& module) { return one.matches(module); });
    });
    if (!is_used) report.unused.push_back(format("target module '{}' has no tensor", tail));
  }
  return report;
}

std::vector<std::string> peft_warnings(const LoraAdapter& adapter, const nn::LinearMap& projections) {
  if (adapter.peft_config.empty()) return {};
  const auto config = parse_peft_config(adapter.peft_config, format("the configuration of adapter '{}'", adapter.name));
  std::vector<std::string> targeted;
  for (const auto& [path, projection] : projections) {
    if (selects_any(config, path)) targeted.push_back(path);
  }
  std::vector<std::string> warnings;
  if (!config.unknown_keys.empty()) {
    warnings.push_back(format("warning: adapter '{}' has unknown keys in its configuration, which are left out: {}", adapter.name,
                              listed(config.unknown_keys)));
  }
  std::vector<std::string> missing;
  for (const auto& path : targeted) {
    if (!adapter.pairs.contains(path)) missing.push_back(path);
  }
  const bool says_targets = config.target_modules.has_value() || !config.options.target_modules.empty();
  if (says_targets && !missing.empty()) {
    warnings.push_back(format("warning: adapter '{}' has no tensors for {} of the {} projections that its configuration targets: {}",
                              adapter.name, missing.size(), targeted.size(), listed(missing)));
  }
  const auto& excluded = config.exclude_modules;
  if ((excluded.pattern || !excluded.tails.empty()) &&
      std::ranges::none_of(all_modules(projections), [&](const auto& module) { return excluded.matches(module); })) {
    warnings.push_back(format("warning: adapter '{}' has exclude_modules that match no module", adapter.name));
  }
  warn_of_keys(config.rank_pattern, "rank_pattern", targeted, adapter.name, warnings);
  warn_of_keys(config.alpha_pattern, "alpha_pattern", targeted, adapter.name, warnings);
  return warnings;
}

}  // namespace quiver::adapters
