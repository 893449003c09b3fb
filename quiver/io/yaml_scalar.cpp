#include "quiver/io/yaml_scalar.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>

namespace quiver::io {
namespace {

using nlohmann::json;

constexpr std::string_view kDecimal = "0123456789_";

/// Reads a text from the left.
class ScalarReader {
 public:
  explicit ScalarReader(std::string_view text) : rest_(text) {}
  bool at_end() const { return rest_.empty(); }
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool take_one_of(std::string_view characters) {
    if (rest_.empty() || characters.find(rest_.front()) == std::string_view::npos) return false;
    rest_.remove_prefix(1);
    return true;
  }
  /// Reads as many of the characters as there are, at most `most`; how many.
  std::size_t run(std::string_view characters, std::size_t most = std::string_view::npos) {
    const auto end = std::min({rest_.find_first_not_of(characters), rest_.size(), most});
    rest_.remove_prefix(end);
    return end;
  }
  /// [0-5]?[0-9] after a colon, once or more.
  bool sixties() {
    std::size_t parts = 0;
    for (; take(":"); ++parts) {
      const auto two = rest_.substr(0, 2);
      if (two.size() == 2 && two[0] >= '0' && two[0] <= '5' && two[1] >= '0' && two[1] <= '9') {
        rest_.remove_prefix(2);
      } else if (!take_one_of("0123456789")) {
        return false;
      }
    }
    return parts > 0;
  }

 private:
  std::string_view rest_;
};

bool is_int(std::string_view text) {
  ScalarReader in(text);
  in.take_one_of("+-");
  if (in.take("0b")) return in.run("01_") > 0 && in.at_end();
  if (in.take("0x")) return in.run("0123456789abcdefABCDEF_") > 0 && in.at_end();
  if (in.take("0")) {
    in.run("01234567_");
    return in.at_end();
  }
  if (!in.take_one_of("123456789")) return false;
  in.run(kDecimal);
  return in.at_end() || (in.sixties() && in.at_end());
}

/// [eE][-+][0-9]+, or nothing.
bool ends_in_exponent(ScalarReader in) {
  if (in.at_end()) return true;
  return in.take_one_of("eE") && in.take_one_of("+-") && in.run("0123456789") > 0 && in.at_end();
}

bool is_float(std::string_view text) {
  ScalarReader in(text);
  if (in.take(".nan") || in.take(".NaN") || in.take(".NAN")) return in.at_end();
  const bool is_signed = in.take_one_of("+-");
  if (in.take(".inf") || in.take(".Inf") || in.take(".INF")) return in.at_end();
  if (in.take(".")) return !is_signed && in.take_one_of("0123456789") && (in.run(kDecimal), ends_in_exponent(in));
  if (!in.take_one_of("0123456789")) return false;
  in.run(kDecimal);
  if (in.take(".")) {
    in.run(kDecimal);
    return ends_in_exponent(in);
  }
  if (!in.sixties() || !in.take(".")) return false;
  in.run(kDecimal);
  return in.at_end();
}

/// A date, or a date with a time of day.
bool is_date(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789", kBlank = " \t";
  ScalarReader day(text);
  if (day.run(kDigits, 4) != 4 || !day.take("-")) return false;
  ScalarReader in = day;
  if (day.run(kDigits, 2) == 2 && day.take("-") && day.run(kDigits, 2) == 2 && day.at_end()) return true;
  if (in.run(kDigits, 2) == 0 || !in.take("-") || in.run(kDigits, 2) == 0) return false;
  if (!in.take_one_of("Tt") && in.run(kBlank) == 0) return false;
  if (in.run(kDigits, 2) == 0 || !in.take(":") || in.run(kDigits, 2) != 2 || !in.take(":") || in.run(kDigits, 2) != 2) return false;
  if (in.take(".")) in.run(kDigits);
  if (in.at_end()) return true;
  in.run(kBlank);
  if (in.take("Z")) return in.at_end();
  if (!in.take_one_of("+-") || in.run(kDigits, 2) == 0) return false;
  return in.at_end() || (in.take(":") && in.run(kDigits, 2) == 2 && in.at_end());
}

bool is_in(std::initializer_list<std::string_view> words, std::string_view text) { return std::ranges::find(words, text) != words.end(); }
bool is_true(std::string_view text) { return is_in({"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}, text); }
bool is_false(std::string_view text) { return is_in({"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}, text); }

std::string without_underscores(std::string_view text) {
  std::string out(text);
  std::erase(out, '_');
  return out;
}

/// Digits with a sign before them, all of them.
std::optional<std::int64_t> integer(const std::string& sign, std::string_view digits, int base) {
  const auto text = (sign == "-" ? sign : "") + std::string(digits);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// a:b:c in base 60, of digits alone.
std::optional<std::int64_t> sexagesimal(const std::string& sign, std::string_view text) {
  std::int64_t value = 0;
  while (true) {
    const auto colon = text.find(':');
    const auto part = integer("", text.substr(0, colon), 10);
    if (!part || __builtin_mul_overflow(value, 60, &value) || __builtin_add_overflow(value, *part, &value)) return std::nullopt;
    if (colon == std::string_view::npos) return sign == "-" ? -value : value;
    text.remove_prefix(colon + 1);
  }
}

std::optional<json> int_value(std::string_view text) {
  if (!is_int(text)) return std::nullopt;
  auto digits = without_underscores(text);
  std::string sign;
  if (digits[0] == '+' || digits[0] == '-') {
    sign = digits.substr(0, 1);
    digits.erase(0, 1);
  }
  std::optional<std::int64_t> value;
  if (digits.starts_with("0b")) {
    value = integer(sign, digits.substr(2), 2);
  } else if (digits.starts_with("0x")) {
    value = integer(sign, digits.substr(2), 16);
  } else if (digits.find(':') != std::string::npos) {
    value = sexagesimal(sign, digits);
  } else {
    value = integer(sign, digits, digits[0] == '0' ? 8 : 10);
  }
  if (!value) return std::nullopt;
  return json(*value);
}

std::optional<json> float_value(std::string_view text) {
  if (!is_float(text) && !is_int(text)) return std::nullopt;
  auto digits = without_underscores(text);
  std::ranges::transform(digits, digits.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
  double sign = 1;
  if (digits[0] == '+' || digits[0] == '-') {
    sign = digits[0] == '-' ? -1 : 1;
    digits.erase(0, 1);
  }
  if (digits == ".inf") return json(sign * std::numeric_limits<double>::infinity());
  if (digits == ".nan") return json(std::numeric_limits<double>::quiet_NaN());
  if (digits.starts_with("0x") || digits.starts_with("0b")) return std::nullopt;
  double value = 0;
  for (std::size_t begin = 0; begin <= digits.size();) {
    const auto end = std::min(digits.find(':', begin), digits.size());
    value = value * 60 + std::strtod(digits.substr(begin, end - begin).c_str(), nullptr);
    begin = end + 1;
  }
  return json(sign * value);
}

}  // namespace

YamlType yaml_type(std::string_view text) {
  if (is_true(text) || is_false(text)) return YamlType::kBool;
  if (is_float(text)) return YamlType::kFloat;
  if (is_int(text)) return YamlType::kInt;
  if (text == "<<") return YamlType::kMerge;
  if (is_in({"", "~", "null", "Null", "NULL"}, text)) return YamlType::kNull;
  if (is_date(text)) return YamlType::kDate;
  if (text == "=") return YamlType::kDefault;
  return YamlType::kText;
}

std::optional<json> yaml_value(std::string_view text, YamlType type) {
  switch (type) {
    case YamlType::kText: return json(std::string(text));
    case YamlType::kNull: return json(nullptr);
    case YamlType::kBool:
      if (!is_true(text) && !is_false(text)) return std::nullopt;
      return json(is_true(text));
    case YamlType::kInt: return int_value(text);
    case YamlType::kFloat: return float_value(text);
    default: return std::nullopt;
  }
}

std::string_view yaml_type_name(YamlType type) {
  switch (type) {
    case YamlType::kText: return "a text";
    case YamlType::kNull: return "null";
    case YamlType::kBool: return "a boolean";
    case YamlType::kInt: return "an integer";
    case YamlType::kFloat: return "a number";
    case YamlType::kDate: return "a date";
    case YamlType::kMerge: return "a merge";
    case YamlType::kDefault: return "YAML's default value";
  }
  return "";
}

}  // namespace quiver::io
