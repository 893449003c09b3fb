// Filters that make numbers: int, float, round.
#include <charconv>
#include <cmath>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {
namespace {

/// The text as Python's int() and float() read it: without white space around it and without single underscores between digits.
std::optional<std::string> number_text(std::string_view text) {
  text = strip(text, {}, false, true, true);
  std::string out;
  const auto is_digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      return std::nullopt;
    }
  }
  if (out.starts_with('+')) {
    out.erase(0, 1);
    if (out.starts_with('-') || out.starts_with('+')) return std::nullopt;
  }
  return out;
}

std::optional<double> parse_float(std::string_view text) {
  const auto plain = number_text(text);
  if (!plain) return std::nullopt;
  const std::string_view digits = std::string_view(*plain).substr(plain->starts_with('-') ? 1 : 0);
  const std::string word = lowercase(digits);
  const double sign = plain->starts_with('-') ? -1 : 1;
  if (word == "inf" || word == "infinity") return sign * INFINITY;
  if (word == "nan") return NAN;
  if (digits.empty() || digits.find_first_not_of("0123456789.eE+-") != std::string_view::npos || digits[0] == '-') return std::nullopt;
  double value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size() || code == std::errc::invalid_argument) return std::nullopt;
  if (code == std::errc::result_out_of_range) value = std::strtod(std::string(digits).c_str(), nullptr);
  return sign * value;
}

std::optional<std::int64_t> parse_int(Context& context, std::string_view text) {
  const auto plain = number_text(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(plain->data(), plain->data() + plain->size(), value);
  if (end != plain->data() + plain->size() || code == std::errc::invalid_argument) return std::nullopt;
  if (code == std::errc::result_out_of_range) context.refuse("an integer beyond 64 bits");
  return value;
}

/// The integer part, or nullopt where Python's int() raises.
std::optional<std::int64_t> truncated(Context& context, double value) {
  if (std::isnan(value) || std::isinf(value)) return std::nullopt;
  if (std::abs(value) >= 9.2e18) context.refuse("an integer beyond 64 bits");
  return static_cast<std::int64_t>(value);
}

/// Python's round(value, precision) of a float: the decimal digits of the exact value, rounded half to even.
double rounded(double value, std::int64_t precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(std::min<std::int64_t>(-precision, 310)));
    return std::isinf(scale) ? 0.0 * value : std::nearbyint(value / scale) * scale;
  }
  std::string buffer(700, '\0');
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, static_cast<int>(precision));
  return std::strtod(std::string(buffer.data(), end.ptr).c_str(), nullptr);
}

}  // namespace

Value filter_int(Context& context, const Value& input, const Given& given) {
  if (given[1] && !(given[1]->is(Type::kInt) && given[1]->integer == 10)) context.refuse("the filter 'int' with a base");
  context.require_defined(input);
  if (input.is_integral()) return context.integer(input.as_integer());
  std::optional<std::int64_t> out;
  if (input.is(Type::kFloat)) {
    if (std::isinf(input.number)) context.raise("infinity is no integer");
    out = truncated(context, input.number);
  } else if (input.is_string()) {
    context.work_bytes(input.text().size());
    out = parse_int(context, input.text());
    if (!out) {
      const auto number = parse_float(input.text());
      if (number) out = truncated(context, *number);
    }
  }
  if (out) return context.integer(*out);
  return given[0] ? *given[0] : context.integer(0);
}

Value filter_float(Context& context, const Value& input, const Given& given) {
  context.require_defined(input);
  if (input.is_number()) return context.number(input.as_number());
  if (input.is_string()) {
    context.work_bytes(input.text().size());
    if (const auto number = parse_float(input.text())) return context.number(*number);
  }
  return given[0] ? *given[0] : context.number(0);
}

Value filter_round(Context& context, const Value& input, const Given& given) {
  const std::int64_t precision = given[0] ? require_integer(context, *given[0], "the precision of the filter 'round'") : 0;
  const std::string method = given[1] ? str(context, *given[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor") context.raise("the filter 'round' knows no method '{}'", method);
  context.require_defined(input);
  if (!input.is_number()) context.raise("{} cannot be rounded", type_name(input));
  if (method == "common") {
    if (input.is(Type::kFloat)) return context.number(rounded(input.number, precision));
    if (precision < 0) context.refuse("the filter 'round' of an integer to a negative precision");
    return context.integer(input.as_integer());
  }
  if (precision < 0 || precision > 300) context.refuse("the filter 'round' with precision {}", precision);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.as_number() * scale;
  if (!std::isfinite(scaled)) context.raise("a number that cannot be rounded");
  return context.number((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

}  // namespace quiver::text::jinja
