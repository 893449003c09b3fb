#include "quiver/model/families/common.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "quiver/base/error.h"
#include "quiver/io/json.h"

namespace quiver::model {

using nlohmann::json;

void refuse(bool condition, const std::string& origin, const std::string& what) {
  if (condition) fail(ErrorKind::kUnsupported, "{}: {} is not supported", origin, what);
}

bool Config::has(const char* key) const { return values_.contains(key); }
bool Config::has_value(const char* key) const { return has(key) && !values_.at(key).is_null(); }
std::int64_t Config::count(const char* key) const { return io::require_int(values_, key, origin_); }
std::int64_t Config::count(const char* key, std::int64_t absent) const { return io::find_int(values_, key, origin_).value_or(absent); }
double Config::number(const char* key, double absent) const { return io::find_double(values_, key, origin_).value_or(absent); }
bool Config::flag(const char* key, bool absent) const { return io::find_bool(values_, key, origin_).value_or(absent); }
std::string Config::word(const char* key, const std::string& absent) const {
  return io::find_string(values_, key, origin_).value_or(absent);
}

void Config::refuse_switches(std::initializer_list<const char*> keys) const {
  for (const char* key : keys) refuse(flag(key, false), origin_, key);
}

backend::Activation activation_of(const Config& config, const std::string& name) {
  using backend::Activation;
  static const std::map<std::string_view, Activation> by_name = {
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"gelu_python_tanh", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_accurate", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
  };
  const auto found = by_name.find(name);
  if (found == by_name.end()) {
    fail(ErrorKind::kUnsupported, "{}: activation '{}' is not supported; expected silu, gelu, gelu_new or relu, by any of their names",
         config.origin(), name);
  }
  return found->second;
}

namespace {

std::vector<double> numbers_of(const json& object, const char* key, const std::string& origin) {
  std::vector<double> numbers;
  for (const auto& item : io::require_array(object, key, origin)) {
    if (!item.is_number()) fail(ErrorKind::kBadFormat, "{}: \"{}\" holds {}; expected numbers", origin, key, item.dump());
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

/// What yarn multiplies cosine and sine by (Peng et al. 2023, sec. 3.4; DeepSeek's two mscale keys).
double yarn_attention_factor(const json& given, double factor, const std::string& origin) {
  const auto scale = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1; };
  const auto mscale = io::find_double(given, "mscale", origin), all = io::find_double(given, "mscale_all_dim", origin);
  return mscale && all ? scale(*mscale) / scale(*all) : scale(1);
}

void read_longrope(const json& given, const RopeDefaults& defaults, const std::string& origin, RopeSpec& rope) {
  rope.type = RopeSpec::Type::kDivided;
  rope.divisors = numbers_of(given, "short_factor", origin);
  rope.long_divisors = numbers_of(given, "long_factor", origin);
  const double factor =
      io::find_double(given, "factor", origin).value_or(static_cast<double>(defaults.max_positions) / rope.original_context);
  rope.attention_factor = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(rope.original_context));
  if (rope.long_divisors != rope.divisors) return;
  rope.long_divisors.clear();  // one list serves all contexts
  rope.original_context = 0;
}

}  // namespace

RopeSpec rope_from_json(const Config& config, const json& given, const RopeDefaults& defaults) {
  using Type = RopeSpec::Type;
  const auto& origin = config.origin();
  const auto find = [&](const char* key) { return io::find_double(given, key, origin); };
  RopeSpec rope;
  auto type = io::find_string(given, "rope_type", origin);
  if (!type) type = io::find_string(given, "type", origin);  // the older spelling
  const auto name = type.value_or("default");
  rope.theta = find("rope_theta").value_or(config.number("rope_theta", defaults.theta));
  const double fraction = find("partial_rotary_factor").value_or(config.number("partial_rotary_factor", defaults.fraction.value_or(1)));
  // transformers reads the share in some of these families for some types, and not for others.
  refuse(!defaults.fraction && fraction != 1, origin, "a partial_rotary_factor other than 1");
  if (!(fraction > 0 && fraction <= 1)) {
    fail(ErrorKind::kBadFormat, "{}: partial_rotary_factor is {}; expected a number above 0 and at most 1", origin, fraction);
  }
  if (defaults.head_dim > 0 && defaults.head_dim <= kMaxDimension) {  // else the description is refused
    rope.rotary_dim = static_cast<std::int64_t>(static_cast<double>(defaults.head_dim) * fraction);
  }
  constexpr std::string_view kTypes[] = {"default", "linear", "dynamic", "llama3", "yarn", "longrope"};
  if (std::ranges::find(kTypes, name) == std::end(kTypes)) {
    fail(ErrorKind::kUnsupported, "{}: rope type '{}' is not supported; expected default, linear, dynamic, llama3, yarn or longrope",
         origin, name);
  }
  if (name == "default" || name == "dynamic") return rope;  // dynamic changes nothing up to max_position_embeddings
  if (name == "llama3" || name == "yarn" || name == "longrope") {
    rope.original_context = find("original_max_position_embeddings").value_or(static_cast<double>(defaults.max_positions));
  }
  if (name == "longrope") {
    read_longrope(given, defaults, origin, rope);
  } else {
    rope.factor = io::require_double(given, "factor", origin);
  }
  if (name == "linear") {
    rope.type = Type::kLinear;
  } else if (name == "llama3") {
    rope.type = Type::kLlama3;
    rope.low_freq_factor = io::require_double(given, "low_freq_factor", origin);
    rope.high_freq_factor = io::require_double(given, "high_freq_factor", origin);
  } else if (name == "yarn") {
    rope.type = Type::kYarn;
    rope.beta_fast = find("beta_fast").value_or(32);
    rope.beta_slow = find("beta_slow").value_or(1);
    rope.truncate = io::find_bool(given, "truncate", origin).value_or(true);
    rope.attention_factor = yarn_attention_factor(given, rope.factor, origin);
  }
  rope.attention_factor = find("attention_factor").value_or(rope.attention_factor);
  return rope;
}

ModelSpec common_from_json(const Config& config, const Defaults& defaults) {
  refuse(config.has_value("quantization_config"), config.origin(), "quantization_config");
  ModelSpec spec;
  spec.family = defaults.family;
  auto& attention = spec.block.attention;
  auto& mlp = spec.block.mlp;
  spec.vocab_size = config.count("vocab_size");
  spec.hidden_size = config.count("hidden_size");
  attention.num_heads = config.count("num_attention_heads");
  const auto usual_kv_heads = config.has("num_key_value_heads") ? attention.num_heads : defaults.num_kv_heads.value_or(attention.num_heads);
  attention.num_kv_heads = config.count("num_key_value_heads", usual_kv_heads);
  const auto even_share = attention.num_heads > 0 ? spec.hidden_size / attention.num_heads : 0;
  attention.head_dim = config.count("head_dim", config.has("head_dim") ? even_share : defaults.head_dim.value_or(even_share));
  attention.has_qkv_bias = attention.has_output_bias = config.flag("attention_bias", false);
  mlp.intermediate_size = config.count("intermediate_size");
  mlp.activation = activation_of(config, config.word(defaults.activation_key, defaults.activation));
  mlp.has_bias = config.flag("mlp_bias", false);
  spec.max_positions = config.count("max_position_embeddings", defaults.max_positions);
  spec.block.norm.epsilon = config.number(defaults.epsilon_key, defaults.epsilon);
  spec.tie_word_embeddings = config.flag("tie_word_embeddings", defaults.is_tied);
  spec.layers = equal_layers(config.count("num_hidden_layers"), config.origin());
  // transformers takes rope_parameters only where rope_scaling says nothing.
  const bool has_scaling = config.has("rope_scaling") && !config.values().at("rope_scaling").empty();
  const char* key = has_scaling ? "rope_scaling" : "rope_parameters";
  spec.ropes = {rope_from_json(config, config.has_value(key) ? io::require_object(config.values(), key, config.origin()) : json::object(),
                               {.theta = defaults.rope_theta,
                                .fraction = defaults.rotary_fraction,
                                .head_dim = attention.head_dim,
                                .max_positions = spec.max_positions})};
  return spec;
}

std::vector<LayerSpec> equal_layers(std::int64_t count, const std::string& origin) {
  if (count < 1 || count > kMaxLayers) {
    fail(ErrorKind::kBadFormat, "{}: number of layers is {}; expected 1 to {}", origin, count, kMaxLayers);
  }
  return std::vector<LayerSpec>(static_cast<std::size_t>(count));
}

std::optional<std::vector<bool>> sliding_layers(const Config& config, std::int64_t num_layers) {
  if (!config.has_value("layer_types")) return std::nullopt;
  const auto& types = io::require_array(config.values(), "layer_types", config.origin());
  if (std::ssize(types) != num_layers) {
    fail(ErrorKind::kBadFormat, "{}: layer_types has {} entries for {} layers; expected one each", config.origin(), types.size(),
         num_layers);
  }
  std::vector<bool> is_sliding;
  for (const auto& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      fail(ErrorKind::kUnsupported, "{}: layer_types holds {}; expected \"full_attention\" or \"sliding_attention\"", config.origin(),
           type.dump());
    }
    is_sliding.push_back(type == "sliding_attention");
  }
  return is_sliding;
}

void set_windows(ModelSpec& spec, std::int64_t window, const std::vector<bool>& is_sliding) {
  for (std::size_t i = 0; i < spec.layers.size(); ++i) spec.layers[i].window = is_sliding[i] ? window : 0;
}

json count_to_json(double count) {
  constexpr double kLargestExact = 1LL << 53;
  if (count == std::round(count) && std::abs(count) <= kLargestExact) return static_cast<std::int64_t>(count);
  return count;
}

namespace {

/// Empty for a rotation without scaling.
json rope_to_json(const RopeSpec& rope, std::int64_t max_positions) {
  using Type = RopeSpec::Type;
  const auto context = rope.original_context > 0 ? rope.original_context : static_cast<double>(max_positions);
  const auto original = count_to_json(context);
  switch (rope.type) {
    case Type::kDefault: return json::object();
    case Type::kLinear: return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case Type::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", original}};
    case Type::kYarn:
      return {{"rope_type", "yarn"},
              {"factor", rope.factor},
              {"beta_fast", rope.beta_fast},
              {"beta_slow", rope.beta_slow},
              {"truncate", rope.truncate},
              {"attention_factor", rope.attention_factor},
              {"original_max_position_embeddings", original}};
    case Type::kDivided:  // where one list serves all contexts, both are it
      return {{"rope_type", "longrope"},
              {"short_factor", rope.divisors},
              {"long_factor", rope.long_divisors.empty() ? rope.divisors : rope.long_divisors},
              {"attention_factor", rope.attention_factor},
              {"original_max_position_embeddings", original}};
  }
  return {};
}

}  // namespace

double rotary_share(const ModelSpec& spec) {
  const auto head_dim = static_cast<double>(spec.block.attention.head_dim);
  const auto rotary_dim = spec.ropes.front().rotary_dim;
  const double share = static_cast<double>(rotary_dim) / head_dim;
  // Readers cut the product to a whole number.
  return static_cast<std::int64_t>(head_dim * share) == rotary_dim ? share : std::nextafter(share, 2.0);
}

std::int64_t common_window(const ModelSpec& spec) {
  std::int64_t window = 0;
  for (const auto& layer : spec.layers) {
    if (layer.window > 0 && window > 0 && layer.window != window) {
      fail(ErrorKind::kUnsupported, "no config.json says that '{}' has windows of {} and of {} keys", spec.name, window, layer.window);
    }
    window = std::max(window, layer.window);
  }
  return window;
}

void add_windows(const ModelSpec& spec, json& config) {
  const auto window = common_window(spec);
  config["sliding_window"] = window > 0 ? json(window) : json();
  json types = json::array();
  for (const auto& layer : spec.layers) types.push_back(layer.window > 0 ? "sliding_attention" : "full_attention");
  config["layer_types"] = std::move(types);
}

namespace {

const char* name_of(backend::Activation activation) {
  switch (activation) {
    case backend::Activation::kSilu: return "silu";
    case backend::Activation::kGelu: return "gelu";
    case backend::Activation::kGeluTanh: return "gelu_pytorch_tanh";
    case backend::Activation::kRelu: return "relu";
  }
  return "";
}

}  // namespace

json common_to_json(const ModelSpec& spec, const char* architecture, const ConfigKeys& keys) {
  const auto& attention = spec.block.attention;
  json config = {{"architectures", {architecture}},
                 {"model_type", spec.family},
                 {"vocab_size", spec.vocab_size},
                 {"hidden_size", spec.hidden_size},
                 {"num_hidden_layers", spec.num_layers()},
                 {"num_attention_heads", attention.num_heads},
                 {"num_key_value_heads", attention.num_kv_heads},
                 {"head_dim", attention.head_dim},
                 {"intermediate_size", spec.block.mlp.intermediate_size},
                 {"max_position_embeddings", spec.max_positions},
                 {keys.epsilon, spec.block.norm.epsilon},
                 {keys.activation, name_of(spec.block.mlp.activation)},
                 {"attention_bias", attention.has_output_bias},
                 {"mlp_bias", spec.block.mlp.has_bias},
                 {"pad_token_id", nullptr},  // a family's own may be beyond the vocabulary
                 {"tie_word_embeddings", spec.tie_word_embeddings}};
  if (spec.ropes.empty()) return config;
  config["rope_theta"] = spec.ropes.front().theta;
  if (auto scaling = rope_to_json(spec.ropes.front(), spec.max_positions); !scaling.empty()) config["rope_scaling"] = std::move(scaling);
  return config;
}

}  // namespace quiver::model
