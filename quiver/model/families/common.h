// What configurations of most families have in common.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/model/families.h"

namespace quiver::model {

/// Throws kUnsupported, naming `what`, if the condition holds.
void refuse(bool condition, const std::string& origin, const std::string& what);

/// One config.json. Where a key is absent, each family's class in transformers has a default of its own.
class Config {
 public:
  Config(const nlohmann::json& values, const std::string& origin) : values_(values), origin_(origin) {}

  const nlohmann::json& values() const { return values_; }
  const std::string& origin() const { return origin_; }
  bool has(const char* key) const;        ///< also null
  bool has_value(const char* key) const;  ///< not null
  std::int64_t count(const char* key) const;
  std::int64_t count(const char* key, std::int64_t absent) const;
  double number(const char* key, double absent) const;
  bool flag(const char* key, bool absent) const;
  std::string word(const char* key, const std::string& absent) const;
  /// Refuses any of these switches that is on.
  void refuse_switches(std::initializer_list<const char*> keys) const;

 private:
  const nlohmann::json& values_;
  const std::string& origin_;
};

/// The function that transformers calls `name`. Throws kUnsupported for one that Quiver does not compute.
backend::Activation activation_of(const Config& config, const std::string& name);

/// The keys and defaults that differ between families whose configurations are like Llama's.
struct Defaults {
  const char* family;
  double epsilon = 1e-6;
  const char* epsilon_key = "rms_norm_eps";
  std::int64_t max_positions = 2048;
  std::optional<std::int64_t> num_kv_heads = {};  ///< where the key is absent; none: as many as heads, as where it is null
  std::optional<std::int64_t> head_dim = {};      ///< none: hidden size over heads
  const char* activation = "silu";
  const char* activation_key = "hidden_act";
  bool is_tied = false;
  double rope_theta = 10000;
  /// The share of a head that is rotated by default. None: the family rotates all of it, and another value is refused.
  std::optional<double> rotary_fraction = {};
};

/// Sizes, norms, rotary positions, activation, tied embeddings and biases under the keys of Llama's configuration.
ModelSpec common_from_json(const Config& config, const Defaults& defaults);

/// Where a rope object's keys are found and what they are by default.
struct RopeDefaults {
  double theta = 10000;
  std::optional<double> fraction = {};
  std::int64_t head_dim = 0;
  std::int64_t max_positions = 0;
};
/// The rotation that the object `given` describes; theta and the share of a head are looked for in it first, then in `config`.
RopeSpec rope_from_json(const Config& config, const nlohmann::json& given, const RopeDefaults& defaults);

/// So many layers, all alike. Throws kBadFormat for none and for more than kMaxLayers.
std::vector<LayerSpec> equal_layers(std::int64_t count, const std::string& origin);
/// The layers that "layer_types" calls "sliding_attention"; nothing where there is no such key.
std::optional<std::vector<bool>> sliding_layers(const Config& config, std::int64_t num_layers);
/// Gives the layers that are true in `is_sliding` the window.
void set_windows(ModelSpec& spec, std::int64_t window, const std::vector<bool>& is_sliding);

/// What a configuration calls the numbers that families call by names of their own.
struct ConfigKeys {
  const char* epsilon = "rms_norm_eps";
  const char* activation = "hidden_act";
};
/// The configuration that common_from_json reads back, of a model that transformers calls `architecture`.
nlohmann::json common_to_json(const ModelSpec& spec, const char* architecture, const ConfigKeys& keys = {});
/// A whole number without a point, as transformers expects counts; any other as it is.
nlohmann::json count_to_json(double count);
/// A partial_rotary_factor: the share of a head that is rotated.
double rotary_share(const ModelSpec& spec);

/// The windows of a model whose layers have none or one and the same: 0 for none at all.
std::int64_t common_window(const ModelSpec& spec);
/// Sets "sliding_window" (null for none) and "layer_types".
void add_windows(const ModelSpec& spec, nlohmann::json& config);

}  // namespace quiver::model
