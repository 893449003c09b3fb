// The members of a request's JSON object, each read once and checked. What nobody asked for is left over.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::api {

/// A value for a message: the string "abc", the number 1.5, an array of 3 values.
std::string described(const nlohmann::json& value);

/// Throws kInvalidRequest with `param`: "'param' is VALUE; expected EXPECTED".
[[noreturn]] void fail_field(const std::string& param, const nlohmann::json& value, std::string_view expected);

// The value at `param` as a type, or fail_field. An integer is a whole number of 64 bits; 3.0 counts as 3.
std::int64_t integer_value(const std::string& param, const nlohmann::json& value, std::int64_t low, std::int64_t high);
double number_value(const std::string& param, const nlohmann::json& value, double low, double high);
std::string text_value(const std::string& param, const nlohmann::json& value);

/// Reads an object's members by name. A member that is null counts as absent. Every reader throws kInvalidRequest for a wrong type or
/// value, with the member's name as `param`. Holds a reference to the object.
class Fields {
 public:
  /// `prefix` stands before the names in messages: "stream_options.". Throws kInvalidRequest if `object` is none.
  explicit Fields(const nlohmann::json& object, std::string prefix = {});

  /// nullptr if the member is absent or null.
  const nlohmann::json* find(const char* name);
  std::optional<std::int64_t> integer(const char* name, std::int64_t low, std::int64_t high);
  std::optional<double> number(const char* name, double low, double high);
  std::optional<bool> boolean(const char* name);
  std::optional<std::string> text(const char* name);
  const nlohmann::json* array(const char* name);
  const nlohmann::json* object(const char* name);
  /// The member's full name.
  std::string param(std::string_view name) const { return prefix_ + std::string(name); }

  /// Throws kUnsupportedValue with this sentence if the member is there and says more than null, false, "", [] or {}.
  void refuse(const char* name, std::string_view sentence);
  /// Notes the member, if it is there, as one without effect.
  void ignore(const char* name);
  /// Full names of the members without effect: those of ignore(), and those that nobody asked for.
  std::vector<std::string> ignored() const;
  /// Names of members that nobody asked for.
  std::vector<std::string> unknown() const;

 private:
  const nlohmann::json& object_;
  std::string prefix_;
  std::set<std::string, std::less<>> known_, ignored_;
};

}  // namespace quiver::api
