#include "quiver/adapters/peft_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::adapters {
namespace {

using nlohmann::json;

/// Keys that change nothing for a finished adapter over linear layers, or are read below. init_lora_weights is judged on its own.
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
                                          "lora_bias",
                                          "lora_dropout",
                                          "megatron_core",
                                          "modules_to_save",
                                          "peft_type",
                                          "peft_version",
                                          "qalora_group_size",
                                          "r",
                                          "rank_pattern",
                                          "revision",
                                          "runtime_config",
                                          "target_modules",
                                          "task_type",
                                          "trainable_token_indices",
                                          "use_dora",
                                          "use_rslora",
                                          "velora_config"};

/// Keys that must be null, false or empty, and why.
struct Refusal {
  const char* key;
  const char* reason;
};
constexpr Refusal kRefused[] = {
    {"target_parameters", "LoRA on bare parameters (mixtures of experts) is not implemented"},
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
}

/// What PEFT's configuration has no place for. PEFT 0.21 leaves it out with a warning.
std::vector<std::string> unknown_keys(const json& config) {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : config.items()) {
    const bool is_known = std::ranges::count(kHarmless, std::string_view(key)) > 0 ||
                          std::ranges::any_of(kRefused, [&key = key](const auto& refusal) { return refusal.key == key; });
    if (!is_known && !is_unset(value)) unknown.push_back(format("{}={}", regex::excerpt(key), shown(value)));
  }
  return unknown;
}

void check_size(std::size_t size, const char* key, std::string_view origin) {
  if (static_cast<std::int64_t>(size) <= kMaxPeftConfigEntries) return;
  fail(ErrorKind::kUnsupported, "{}: {} has {} entries; at most {} are read", origin, key, size, kMaxPeftConfigEntries);
}

bool is_given(const json& config, const char* key) { return config.contains(key) && !config[key].is_null(); }

/// The strings of a list; empty if absent.
std::vector<std::string> string_list(const json& config, const char* key, std::string_view origin) {
  if (!is_given(config, key)) return {};
  const auto& value = config[key];
  std::vector<std::string> strings;
  if (!value.is_array()) fail(ErrorKind::kBadFormat, "{}: {} is {}, not a list of names", origin, key, shown(value));
  check_size(value.size(), key, origin);
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
  if (!is_given(config, key)) return {};
  const auto items = config[key].is_array() ? config[key] : json::array({config[key]});
  check_size(items.size(), key, origin);
  std::vector<std::int64_t> result;
  for (const auto& item : items) {
    if (!item.is_number_integer()) fail(ErrorKind::kBadFormat, "{}: {} holds {}, not an integer", origin, key, shown(item));
    result.push_back(item.get<std::int64_t>());
  }
  return result;
}

/// trainable_token_indices: a list, of the embedding, or lists by the name of a module.
std::map<std::string, std::vector<std::int64_t>> trainable_tokens(const json& config, std::string_view origin) {
  constexpr const char* kKey = "trainable_token_indices";
  std::map<std::string, std::vector<std::int64_t>> tokens;
  if (!is_given(config, kKey) || is_unset(config[kKey])) return tokens;
  if (!config[kKey].is_object()) {
    tokens[""] = integer_list(config, kKey, origin);
    return tokens;
  }
  check_size(config[kKey].size(), kKey, origin);
  for (const auto& [name, ids] : config[kKey].items()) tokens[name] = integer_list(config[kKey], name.c_str(), origin);
  return tokens;
}

/// The expressions by which PEFT finds a layer's index: after one of layers_pattern, or where that is empty after any name but the first.
std::vector<regex::PythonPattern> layer_indices(const json& config, std::string_view origin) {
  constexpr const char* kKey = "layers_pattern";
  constexpr std::string_view kIndex = "\\.(?P<idx>\\d+)\\.";
  const auto where = format("{}: {}", origin, kKey);
  const bool is_name = config.contains(kKey) && config[kKey].is_string();
  auto names = is_name ? std::vector{config[kKey].get<std::string>()} : string_list(config, kKey, origin);
  if (names.empty() || (is_name && names.front().empty())) {
    return {regex::PythonPattern("[^.]*", where, {.before = ".*?\\.", .after = kIndex})};
  }
  std::vector<regex::PythonPattern> patterns;
  for (const auto& name : names) patterns.emplace_back(name, where, regex::Surroundings{.before = "(?:^|.*?\\.)", .after = kIndex});
  return patterns;
}

void check_rank(std::int64_t rank, std::string_view what, std::string_view origin) {
  if (rank < 1) fail(ErrorKind::kBadFormat, "{}: {} is {}; it must be at least 1", origin, what, rank);
  if (rank > kMaxRank) fail(ErrorKind::kUnsupported, "{}: {} is {}; at most {} is read", origin, what, rank, kMaxRank);
}

/// The entries of rank_pattern or alpha_pattern, in the order of the file, which decides between two that match.
template <typename Value>
std::vector<ModulePattern<Value>> patterns(const nlohmann::ordered_json& config, const char* key, std::string_view origin) {
  std::vector<ModulePattern<Value>> result;
  if (!config.contains(key) || config[key].is_null()) return result;
  if (!config[key].is_object()) fail(ErrorKind::kBadFormat, "{}: {} is not an object", origin, key);
  check_size(config[key].size(), key, origin);
  for (const auto& [expression, value] : config[key].items()) {
    const bool is_value = std::is_integral_v<Value> ? value.is_number_integer() : value.is_number();
    const auto what = format("{} of '{}'", key, regex::excerpt(expression));
    if (!is_value) fail(ErrorKind::kBadFormat, "{}: {} is {}, not a number", origin, what, shown(json(value)));
    const auto number = value.template get<Value>();
    if constexpr (std::is_integral_v<Value>) check_rank(number, what, origin);
    result.push_back(
        {expression, regex::PythonPattern(expression, format("{}: {}", origin, key), {.before = "(.*\\.)?(", .after = ")$"}), number});
  }
  return result;
}

/// What PEFT refuses of a selection by layers.
void check_layers(const json& config, std::string_view origin) {
  const bool is_expression = is_given(config, "target_modules") && config["target_modules"].is_string();
  for (const char* key : {"layers_to_transform", "layers_pattern"}) {
    if (!is_expression || !is_given(config, key)) continue;
    fail(ErrorKind::kBadFormat,
         "{}: {} is {} beside target_modules {}, an expression, which PEFT refuses; give target_modules as a list, or leave {} out", origin,
         key, shown(config[key]), shown(config["target_modules"]), key);
  }
  if (is_given(config, "layers_pattern") && !is_unset(config["layers_pattern"]) && !is_given(config, "layers_to_transform")) {
    fail(ErrorKind::kBadFormat, "{}: layers_pattern is {} without layers_to_transform, which PEFT refuses; give both or none", origin,
         shown(config["layers_pattern"]));
  }
}

/// "all-linear", in any case, as PEFT reads it.
bool is_all_linear(const json& config) {
  if (!is_given(config, "target_modules") || !config["target_modules"].is_string()) return false;
  auto text = config["target_modules"].get<std::string>();
  std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text == "all-linear";
}

/// The number that `digits` tell; nothing where it is beyond any layer.
std::optional<std::int64_t> layer_number(std::string_view digits, const std::string& module) {
  constexpr std::size_t kMostDigits = 18;
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) {
    fail(ErrorKind::kUnsupported, "module '{}' has the layer index '{}'; expected ASCII digits", module, digits);
  }
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.size() > kMostDigits) return std::nullopt;
  std::int64_t number = 0;
  for (const char c : digits) number = number * 10 + (c - '0');
  return number;
}

template <typename Value>
Value first_match(const std::vector<ModulePattern<Value>>& patterns, const std::string& module, Value otherwise) {
  const auto found = std::ranges::find_if(patterns, [&](const auto& entry) { return entry.pattern.match(module); });
  return found == patterns.end() ? otherwise : found->value;
}

}  // namespace

bool ModuleSelection::matches(const std::string& path) const {
  if (pattern.has_value()) return pattern->full_match(path);
  return std::ranges::any_of(tails, [&](const auto& tail) { return path == tail || path.ends_with("." + tail); });
}

std::int64_t PeftConfig::rank_of(const std::string& module) const { return first_match(rank_pattern, module, options.rank); }

double PeftConfig::alpha_of(const std::string& module) const { return first_match(alpha_pattern, module, options.alpha); }

bool PeftConfig::selects(const std::string& module) const {
  if (exclude_modules.matches(module)) return false;
  if (!target_modules.has_value()) return true;
  if (!target_modules->matches(module)) return false;
  const bool is_named_whole = std::ranges::find(target_modules->tails, module) != target_modules->tails.end();
  if (layers_to_transform.empty() || is_named_whole) return true;
  for (const auto& pattern : layer_indices) {
    const auto digits = pattern.last_group(module);
    if (!digits) continue;
    const auto index = layer_number(*digits, module);
    return index && std::ranges::find(layers_to_transform, *index) != layers_to_transform.end();
  }
  return false;
}

PeftConfig parse_peft_config(std::string_view text, std::string_view origin) {
  if (static_cast<std::int64_t>(text.size()) > kMaxPeftConfigBytes) {
    fail(ErrorKind::kUnsupported, "{}: {} bytes; at most {} are read", origin, text.size(), kMaxPeftConfigBytes);
  }
  const auto config = io::parse_json(text, origin);
  if (!config.is_object()) fail(ErrorKind::kBadFormat, "{}: not a JSON object", origin);
  refuse_other_methods(config, origin);
  check_layers(config, origin);
  PeftConfig result;
  result.unknown_keys = unknown_keys(config);
  auto& options = result.options;
  options.rank = io::require_int(config, "r", origin);
  options.alpha = io::require_double(config, "lora_alpha", origin);
  options.dropout = io::find_double(config, "lora_dropout", origin).value_or(0.0);
  options.use_rslora = io::find_bool(config, "use_rslora", origin).value_or(false);
  options.use_dora = io::find_bool(config, "use_dora", origin).value_or(false);
  check_rank(options.rank, "r", origin);
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail(ErrorKind::kBadFormat, "{}: lora_dropout is {}; it must be in [0, 1)", origin, options.dropout);
  }
  result.base_model = io::find_string(config, "base_model_name_or_path", origin).value_or("");
  if (static_cast<std::int64_t>(result.base_model.size()) > kMaxBaseNameBytes) {
    fail(ErrorKind::kUnsupported, "{}: base_model_name_or_path has {} bytes; at most {} are read", origin, result.base_model.size(),
         kMaxBaseNameBytes);
  }
  const auto ordered = nlohmann::ordered_json::parse(text);  // `text` has been parsed before
  result.rank_pattern = patterns<std::int64_t>(ordered, "rank_pattern", origin);
  result.alpha_pattern = patterns<double>(ordered, "alpha_pattern", origin);
  options.target_modules.clear();
  if (is_all_linear(config)) {
    options.target_modules = {"all-linear"};
  } else if (is_given(config, "target_modules")) {
    result.target_modules = selection(config, "target_modules", origin);
    options.target_modules = result.target_modules->tails;
    std::ranges::sort(options.target_modules);
  }
  result.has_lora_bias = io::find_bool(config, "lora_bias", origin).value_or(false);
  if (result.has_lora_bias && options.use_dora) {
    fail(ErrorKind::kBadFormat, "{}: lora_bias and use_dora are both true, which PEFT refuses", origin);
  }
  result.ensures_weight_tying = io::find_bool(config, "ensure_weight_tying", origin).value_or(false);
  result.modules_to_save = string_list(config, "modules_to_save", origin);
  result.trainable_tokens = trainable_tokens(config, origin);
  result.exclude_modules = selection(config, "exclude_modules", origin);
  result.layers_to_transform = integer_list(config, "layers_to_transform", origin);
  result.layer_indices = layer_indices(config, origin);
  return result;
}

}  // namespace quiver::adapters
