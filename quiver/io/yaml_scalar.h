// YAML 1.1's plain scalars, as PyYAML resolves them. Only yaml*.cpp include it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace quiver::io {

enum class YamlType { kText, kNull, kBool, kInt, kFloat, kDate, kMerge, kDefault };

/// The type of a plain scalar.
YamlType yaml_type(std::string_view text);
/// The value of a text of that type, one of the first five; nullopt if it is none (an explicit tag on another text, digits that are
/// underscores alone) or beyond 64 bits.
std::optional<nlohmann::json> yaml_value(std::string_view text, YamlType type);
/// "an integer", "a date": for messages.
std::string_view yaml_type_name(YamlType type);

}  // namespace quiver::io
