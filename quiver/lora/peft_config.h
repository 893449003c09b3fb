// adapter_config.json: what PEFT's LoraConfig says of an adapter. Used by peft.h only.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/lora/lora.h"

namespace quiver::lora {

/// A Python regular expression over module paths, of the part of the language that ECMAScript shares.
class PathPattern {
 public:
  /// Throws kUnsupported, naming `origin`, for an expression that cannot be honoured.
  PathPattern(std::string text, std::string_view origin);
  bool matches(const std::string& path) const { return std::regex_match(path, regex_); }

 private:
  std::regex regex_;
};

/// A selection of modules: tails of paths, or an expression for whole paths.
struct ModuleSelection {
  std::vector<std::string> tails;
  std::optional<PathPattern> pattern;
  bool matches(const std::string& path) const;
};

/// The parts of a LoraConfig that Quiver honours. Module paths are those of transformers
/// ("model.layers.3.self_attn.q_proj").
struct PeftConfig {
  LoraOptions options;  ///< target_modules is empty if they are given as an expression
  std::string base_model;
  std::vector<std::pair<PathPattern, std::int64_t>> rank_pattern;
  std::vector<std::pair<PathPattern, double>> alpha_pattern;
  std::optional<ModuleSelection> target_modules;  ///< nullopt: "all-linear", or not said
  ModuleSelection exclude_modules;
  std::vector<std::int64_t> layers_to_transform;  ///< empty: all
  std::vector<std::string> layers_pattern;

  /// The rank and alpha PEFT gives to a module: those of the first pattern that matches an end of the path.
  std::int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  /// Whether PEFT would put a LoRA on the module.
  bool selects(const std::string& module) const;
};

/// Parses adapter_config.json. Throws kBadFormat, or kUnsupported for whatever would make PEFT compute something other
/// than y = W x + b + scaling B A x with the base's own W, or DoRA's scaling of it.
PeftConfig parse_peft_config(std::string_view text, std::string_view origin);

/// The module of transformers ("model.layers.3.self_attn.q_proj") that a projection path stands for.
using ModuleOf = std::string (*)(const std::string& path);

/// adapter_config.json of an adapter, indented as PEFT does, without a final newline. What adapter.peft_config says
/// beyond PeftConfig is kept, and so are its patterns and targets if they are true of the pairs.
std::string peft_config_text(const LoraAdapter& adapter, ModuleOf module_of);

}  // namespace quiver::lora
