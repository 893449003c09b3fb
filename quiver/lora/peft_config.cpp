#include "quiver/lora/peft_config.h"

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::lora {
namespace {

using nlohmann::json;

/// Keys that change nothing for a finished adapter over linear layers, or are read below.
/// init_lora_weights is judged on its own.
constexpr std::string_view kHarmless[] = {"alpha_pattern",
                                          "auto_mapping",
                                          "base_model_name_or_path",
                                          "bias",
                                          "ensure_weight_tying",
                                          "eva_config",
                                          "exclude_modules",
                                          "fan_in_fan_out",
                                          "inference_mode",
                                          "init_lora_weights",
                                          "layers_pattern",
                                          "layers_to_transform",
                                          "loftq_config",
                                          "corda_config",
                                          "lora_ga_config",
                                          "lora_alpha",
                                          "lora_dropout",
                                          "megatron_core",
                                          "peft_type",
                                          "peft_version",
                                          "qalora_group_size",
                                          "r",
                                          "rank_pattern",
                                          "revision",
                                          "runtime_config",
                                          "target_modules",
                                          "task_type",
                                          "use_dora",
                                          "use_rslora",
                                          "velora_config"};

/// Keys that must be null, false or empty, and why.
struct Refusal {
  const char* key;
  const char* reason;
};
constexpr Refusal kRefused[] = {
    {"modules_to_save", "whole modules would replace those of the base"},
    {"lora_bias", "the update would have a bias"},
    {"target_parameters", "LoRA on bare parameters (mixtures of experts) is not implemented"},
    {"trainable_token_indices", "retrained token embeddings are not implemented"},
    {"layer_replication", "the base would have other layers"},
    {"alora_invocation_tokens", "activated LoRA, switched on by a token sequence, is not implemented"},
    {"use_qalora", "QALoRA pools its input"},
    {"use_bdlora", "block-diagonal LoRA is not implemented"},
    {"arrow_config", "a router is no adapter: load its adapters into a library and route there"},
    {"kasa_config", "KaSA truncates the base weight"},
    {"monteclora_config", "MonteCLoRA samples its weights"},
    {"megatron_config", "Megatron's parallel layers are not implemented"},
};

/// Values of init_lora_weights that leave the base weight as it is. The others take the initial adapter out of it, so
/// that the file's factors belong to a base which is not the published one.
bool keeps_base(const json& init) {
  static constexpr std::string_view kSafe[] = {"gaussian", "eva", "orthogonal", "mica"};
  if (init.is_null() || init.is_boolean()) return true;
  return init.is_string() && std::ranges::count(kSafe, std::string_view(init.get_ref<const std::string&>())) > 0;
}

bool is_unset(const json& value) {
  return value.is_null() || value == json(false) || value == json("") || (value.is_structured() && value.empty());
}

std::string shown(const json& value) {
  auto text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

void refuse_other_methods(const json& config, std::string_view origin) {
  const auto type = io::require_string(config, "peft_type", origin);
  if (type != "LORA") {
    fail(ErrorKind::kUnsupported, "{}: peft_type is '{}'; only LORA adapters can be used", origin, type);
  }
  for (const auto& [key, reason] : kRefused) {
    if (config.contains(key) && !is_unset(config[key])) {
      fail(ErrorKind::kUnsupported, "{}: {} is {}, which cannot be used: {}", origin, key, shown(config[key]), reason);
    }
  }
  io::find_string(config, "bias", origin);  // trained biases, if the base has any, stand among the tensors, where they are refused
  if (config.contains("init_lora_weights") && !keeps_base(config["init_lora_weights"])) {
    fail(ErrorKind::kUnsupported,
         "{}: init_lora_weights is {}, which changes the base weight (save it from PEFT with path_initial_model_for_weight_conversion, "
         "which makes it a plain LoRA)",
         origin, shown(config["init_lora_weights"]));
  }
  for (const auto& [key, value] : config.items()) {
    const bool is_known = std::ranges::count(kHarmless, std::string_view(key)) > 0 ||
                          std::ranges::any_of(kRefused, [&key = key](const auto& refusal) { return refusal.key == key; });
    if (!is_known && !is_unset(value)) {
      fail(ErrorKind::kUnsupported, "{}: the key '{}' ({}) is unknown and may change what the adapter computes; remove it if it does not",
           origin, key, shown(value));
    }
  }
}

/// The strings of a list, or of a lone string; empty if absent.
std::vector<std::string> string_list(const json& config, const char* key, std::string_view origin) {
  if (!config.contains(key) || config[key].is_null()) return {};
  const auto& value = config[key];
  if (value == json("")) return {};
  if (value.is_string()) return {value.get<std::string>()};
  std::vector<std::string> strings;
  if (!value.is_array()) fail(ErrorKind::kBadFormat, "{}: {} is {}, not a list of names", origin, key, shown(value));
  for (const auto& item : value) {
    if (!item.is_string()) fail(ErrorKind::kBadFormat, "{}: {} holds {}, not a name", origin, key, shown(item));
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

/// A list of tails, or one expression for the whole path (PEFT tells them apart by the type).
ModuleSelection selection(const json& config, const char* key, std::string_view origin) {
  ModuleSelection result;
  if (config.contains(key) && config[key].is_string()) {
    const auto text = config[key].get<std::string>();
    if (!text.empty()) result.pattern.emplace(text, format("{}: {}", origin, key));
  } else {
    result.tails = string_list(config, key, origin);
  }
  return result;
}

std::vector<std::int64_t> integer_list(const json& config, const char* key, std::string_view origin) {
  if (!config.contains(key) || config[key].is_null()) return {};
  const auto items = config[key].is_array() ? config[key] : json::array({config[key]});
  std::vector<std::int64_t> result;
  for (const auto& item : items) {
    if (!item.is_number_integer()) fail(ErrorKind::kBadFormat, "{}: {} holds {}, not an integer", origin, key, shown(item));
    result.push_back(item.get<std::int64_t>());
  }
  return result;
}

/// The entries of rank_pattern or alpha_pattern, in the order of the file, which decides between two that match.
template <typename Value>
std::vector<std::pair<PathPattern, Value>> patterns(std::string_view text, const char* key, std::string_view origin) {
  std::vector<std::pair<PathPattern, Value>> result;
  const auto config = nlohmann::ordered_json::parse(text);  // `text` has been parsed before
  if (!config.contains(key) || config[key].is_null()) return result;
  if (!config[key].is_object()) fail(ErrorKind::kBadFormat, "{}: {} is not an object", origin, key);
  for (const auto& [expression, value] : config[key].items()) {
    const bool is_value = std::is_integral_v<Value> ? value.is_number_integer() : value.is_number();
    if (!is_value) {
      fail(ErrorKind::kBadFormat, "{}: {} gives '{}' the value {}, not a number", origin, key, expression, value.dump());
    }
    const auto where = format("{}: {}", origin, key);
    result.emplace_back(PathPattern("(.*\\.)?(" + expression + ")", where), value.template get<Value>());
  }
  return result;
}

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::ranges::sort(names);
  return names;
}

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
  std::map<std::string, PairSize> by_module;
};

PairSizes sizes_of(const LoraAdapter& adapter, ModuleOf module_of) {
  PairSizes sizes{.use_rslora = std::ranges::all_of(adapter.pairs, [](const auto& e) { return e.second.use_rslora(); }),
                  .use_dora = std::ranges::any_of(adapter.pairs, [](const auto& e) { return e.second.magnitude().defined(); }),
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
    config["target_modules"] = sorted(targets);
  } else {
    config["target_modules"] = json::array();
    for (const auto& [module, size] : all) config["target_modules"].push_back(module);
  }
  for (const char* key : {"layers_to_transform", "layers_pattern", "exclude_modules"}) {
    if (config.contains(key)) config[key] = nullptr;
  }
}

}  // namespace

PathPattern::PathPattern(std::string text, std::string_view origin) {
  try {
    regex_ = std::regex(text, std::regex::ECMAScript
#ifdef __GLIBCXX__
                                  | std::regex_constants::__polynomial  // no blow-up, whatever the expression
#endif
    );
  } catch (const std::regex_error&) {
    fail(ErrorKind::kUnsupported, "{} holds the regular expression '{}', which cannot be used here (simplify it)", origin, text);
  }
}

bool ModuleSelection::matches(const std::string& path) const {
  if (pattern.has_value()) return pattern->matches(path);
  return std::ranges::any_of(tails, [&](const auto& tail) { return path == tail || path.ends_with("." + tail); });
}

std::int64_t PeftConfig::rank_of(const std::string& module) const {
  for (const auto& [pattern, rank] : rank_pattern) {
    if (pattern.matches(module)) return rank;
  }
  return options.rank;
}

double PeftConfig::alpha_of(const std::string& module) const {
  for (const auto& [pattern, alpha] : alpha_pattern) {
    if (pattern.matches(module)) return alpha;
  }
  return options.alpha;
}

bool PeftConfig::selects(const std::string& module) const {
  if (exclude_modules.matches(module)) return false;
  if (!target_modules.has_value()) return true;
  if (!target_modules->matches(module)) return false;
  const bool is_named_whole = std::ranges::find(target_modules->tails, module) != target_modules->tails.end();
  if (layers_to_transform.empty() || target_modules->pattern.has_value() || is_named_whole) return true;
  // The layer's index is the first number after a name (after one of layers_pattern, if given).
  for (std::size_t start = 0, end = 0; start < module.size(); start = end + 1) {
    end = std::min(module.find('.', start), module.size());
    const auto next_end = std::min(module.find('.', end + 1), module.size());
    if (next_end >= module.size()) return false;
    const auto name = module.substr(start, end - start);
    const auto index = module.substr(end + 1, next_end - end - 1);
    const bool is_number = !index.empty() && index.size() < 10 && index.find_first_not_of("0123456789") == std::string::npos;
    const bool is_layer_list = layers_pattern.empty() ? start > 0 : std::ranges::find(layers_pattern, name) != layers_pattern.end();
    if (is_number && is_layer_list) {
      return std::ranges::find(layers_to_transform, std::stoll(index)) != layers_to_transform.end();
    }
  }
  return false;
}

PeftConfig parse_peft_config(std::string_view text, std::string_view origin) {
  const auto config = io::parse_json(text, origin);
  if (!config.is_object()) fail(ErrorKind::kBadFormat, "{}: not a JSON object", origin);
  refuse_other_methods(config, origin);
  PeftConfig result;
  auto& options = result.options;
  options.rank = io::require_int(config, "r", origin);
  options.alpha = io::require_double(config, "lora_alpha", origin);
  options.dropout = io::find_double(config, "lora_dropout", origin).value_or(0.0);
  options.use_rslora = io::find_bool(config, "use_rslora", origin).value_or(false);
  options.use_dora = io::find_bool(config, "use_dora", origin).value_or(false);
  if (options.rank < 1) fail(ErrorKind::kBadFormat, "{}: r is {}; it must be at least 1", origin, options.rank);
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail(ErrorKind::kBadFormat, "{}: lora_dropout is {}; it must be in [0, 1)", origin, options.dropout);
  }
  result.base_model = io::find_string(config, "base_model_name_or_path", origin).value_or("");
  result.rank_pattern = patterns<std::int64_t>(text, "rank_pattern", origin);
  result.alpha_pattern = patterns<double>(text, "alpha_pattern", origin);
  const bool is_all_linear = config.contains("target_modules") && config["target_modules"] == json("all-linear");
  options.target_modules.clear();
  if (is_all_linear) {
    options.target_modules = {"all-linear"};
  } else if (config.contains("target_modules") && !config["target_modules"].is_null()) {
    result.target_modules = selection(config, "target_modules", origin);
    options.target_modules = sorted(result.target_modules->tails);
  }
  result.exclude_modules = selection(config, "exclude_modules", origin);
  result.layers_to_transform = integer_list(config, "layers_to_transform", origin);
  result.layers_pattern = string_list(config, "layers_pattern", origin);
  return result;
}

std::string peft_config_text(const LoraAdapter& adapter, ModuleOf module_of) {
  const auto origin = format("the configuration of adapter '{}'", adapter.name);
  auto config = adapter.peft_config.empty() ? default_config() : io::parse_json(adapter.peft_config, origin);
  const auto sizes = sizes_of(adapter, module_of);
  set(config, "use_rslora", sizes.use_rslora);
  set(config, "use_dora", sizes.use_dora);
  set(config, "lora_dropout", adapter.options.dropout);
  set(config, "base_model_name_or_path", adapter.base_model.empty() ? json(nullptr) : json(adapter.base_model));
  set_sizes(config, adapter, sizes, origin);
  set_targets(config, adapter, sizes, origin);
  return io::dump_json(config, origin, /*indent=*/2);
}

}  // namespace quiver::lora
