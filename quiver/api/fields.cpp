#include "quiver/api/fields.h"

#include <cmath>

#include "quiver/api/error.h"
#include "quiver/api/json_text.h"
#include "quiver/base/error.h"

namespace quiver::api {

using nlohmann::json;

std::string described(const json& value) {
  switch (value.type()) {
    case json::value_t::null: return "null";
    case json::value_t::boolean: return value.get<bool>() ? "true" : "false";
    case json::value_t::string: {
      std::string out = "the string ";
      append_json(out, clipped(value.get_ref<const std::string&>()));
      return out;
    }
    case json::value_t::array: return format("an array of {} value{}", value.size(), value.size() == 1 ? "" : "s");
    case json::value_t::object: return "an object";
    default: return "the number " + value.dump();
  }
}

void fail_field(const std::string& param, const json& value, std::string_view expected) {
  throw ApiError(Reason::kInvalidRequest, format("'{}' is {}; expected {}", param, described(value), expected), param);
}

std::int64_t integer_value(const std::string& param, const json& value, std::int64_t low, std::int64_t high) {
  std::optional<std::int64_t> found;
  if (value.is_number_unsigned()) {
    if (value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)) found = value.get<std::int64_t>();
  } else if (value.is_number_integer()) {
    found = value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const double number = value.get<double>();
    // Beyond 2^53 a double no longer says which integer was meant.
    if (std::trunc(number) == number && std::abs(number) <= 0x1p53) found = static_cast<std::int64_t>(number);
  }
  if (found && *found >= low && *found <= high) return *found;
  if (low == INT64_MIN && high == INT64_MAX) fail_field(param, value, "an integer of 64 bits");
  if (high == INT64_MAX) fail_field(param, value, format("an integer of at least {}", low));
  fail_field(param, value, format("an integer from {} to {}", low, high));
}

double number_value(const std::string& param, const json& value, double low, double high) {
  if (value.is_number()) {
    const auto number = value.get<double>();
    if (number >= low && number <= high) return number;
  }
  fail_field(param, value, format("a number from {} to {}", low, high));
}

std::string text_value(const std::string& param, const json& value) {
  if (!value.is_string()) fail_field(param, value, "a string");
  return value.get<std::string>();
}

Fields::Fields(const json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {
  if (!object_.is_object()) fail_field(prefix_.empty() ? "body" : prefix_.substr(0, prefix_.size() - 1), object_, "an object");
}

const json* Fields::find(const char* name) {
  known_.insert(name);
  const auto place = object_.find(name);
  return place == object_.end() || place->is_null() ? nullptr : &*place;
}

std::optional<std::int64_t> Fields::integer(const char* name, std::int64_t low, std::int64_t high) {
  const json* value = find(name);
  return value == nullptr ? std::nullopt : std::optional(integer_value(param(name), *value, low, high));
}

std::optional<double> Fields::number(const char* name, double low, double high) {
  const json* value = find(name);
  return value == nullptr ? std::nullopt : std::optional(number_value(param(name), *value, low, high));
}

std::optional<bool> Fields::boolean(const char* name) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail_field(param(name), *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> Fields::text(const char* name) {
  const json* value = find(name);
  return value == nullptr ? std::nullopt : std::optional(text_value(param(name), *value));
}

const json* Fields::array(const char* name) {
  const json* value = find(name);
  if (value != nullptr && !value->is_array()) fail_field(param(name), *value, "an array");
  return value;
}

const json* Fields::object(const char* name) {
  const json* value = find(name);
  if (value != nullptr && !value->is_object()) fail_field(param(name), *value, "an object");
  return value;
}

void Fields::refuse(const char* name, std::string_view sentence) {
  const json* value = find(name);
  if (value == nullptr) return;
  const bool says_nothing = (value->is_boolean() && !value->get<bool>()) ||
                            (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                            (value->is_structured() && value->empty());
  if (!says_nothing) throw ApiError(Reason::kUnsupportedValue, format("'{}' {}", param(name), sentence), param(name));
}

void Fields::ignore(const char* name) {
  if (find(name) != nullptr) ignored_.insert(param(name));
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> names;
  for (const auto& item : object_.items()) {
    if (!known_.contains(item.key())) names.push_back(param(item.key()));
  }
  return names;
}

std::vector<std::string> Fields::ignored() const {
  std::vector<std::string> names(ignored_.begin(), ignored_.end());
  for (auto& name : unknown()) names.push_back(std::move(name));
  return names;
}

}  // namespace quiver::api
