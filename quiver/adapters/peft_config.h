// adapter_config.json: what PEFT's LoraConfig says of an adapter. Free of libtorch, so that it runs under fuzzers.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/adapters/lora_options.h"
#include "quiver/regex/python_pattern.h"

namespace quiver::adapters {

/// A longer adapter_config.json is refused.
inline constexpr std::int64_t kMaxPeftConfigBytes = std::int64_t{16} << 20;
/// A list or a table of patterns in it with more entries is refused.
inline constexpr std::int64_t kMaxPeftConfigEntries = 65536;
/// A rank above this is refused.
inline constexpr std::int64_t kMaxRank = 65536;
/// A longer base_model_name_or_path is refused.
inline constexpr std::int64_t kMaxBaseNameBytes = 4096;

/// A selection of modules: tails of paths, or an expression for whole paths.
struct ModuleSelection {
  std::vector<std::string> tails;
  std::optional<regex::PythonPattern> pattern;

  bool matches(const std::string& path) const;
};

/// An entry of rank_pattern or alpha_pattern.
template <typename Value>
struct ModulePattern {
  std::string key;
  regex::PythonPattern pattern;  ///< PEFT's f"(.*\.)?({key})$", for re.match
  Value value;
};

/// The parts of a LoraConfig that Quiver honours. Module paths are those of transformers
/// ("model.layers.3.self_attn.q_proj"). Methods throw kUnsupported where a pattern cannot be matched with a path.
struct PeftConfig {
  LoraOptions options;  ///< target_modules is empty if they are given as an expression
  std::string base_model;
  std::vector<ModulePattern<std::int64_t>> rank_pattern;
  std::vector<ModulePattern<double>> alpha_pattern;
  std::optional<ModuleSelection> target_modules;  ///< nullopt: "all-linear", or not said
  ModuleSelection exclude_modules;
  std::vector<std::int64_t> layers_to_transform;    ///< empty: all
  std::vector<regex::PythonPattern> layer_indices;  ///< each finds the layer's index in a path, as its last group
  bool has_lora_bias = false;
  bool ensures_weight_tying = false;
  std::vector<std::string> modules_to_save;  ///< ends of the names of modules whose weights the file holds whole
  /// Tokens whose rows the file holds, by the tail of a module; "" is the embedding.
  std::map<std::string, std::vector<std::int64_t>> trainable_tokens;
  std::vector<std::string> unknown_keys;  ///< "key=value", left out as PEFT does

  /// The rank and alpha PEFT gives to a module: those of the first pattern that matches.
  std::int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  /// Whether PEFT would put a LoRA on the module.
  bool selects(const std::string& module) const;
};

/// Parses adapter_config.json. Throws kBadFormat, also for what PEFT refuses, or kUnsupported for whatever would make PEFT compute
/// something other than y = W x + b + scaling B A x with the base's own W, or DoRA's scaling of it.
PeftConfig parse_peft_config(std::string_view text, std::string_view origin);

}  // namespace quiver::adapters
