// Python's operators, subscripts and slices.
#include <cmath>

#include "quiver/base/utf8.h"
#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {
namespace {

[[noreturn]] void wrong_operands(Context& context, std::string_view op, const Value& a, const Value& b) {
  for (const Value* side : {&a, &b}) context.require_defined(*side, format(", as an operand of '{}'", op));
  context.raise("'{}' does not take {} and {}", op, type_name(a), type_name(b));
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  if ((rest < 0) != (b < 0)) rest += b;
  return rest;
}

double float_floor_divide(double a, double b) {
  const double rest = float_modulo(a, b);
  const double quotient = (a - rest) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

[[noreturn]] void too_big(Context& context) { context.refuse("an integer beyond 64 bits"); }

Value integer_power(Context& context, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) context.raise("0 cannot be raised to a negative power");
    return context.number(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return context.integer(exponent == 0 ? 1 : base);
  if (base == -1) return context.integer(exponent % 2 == 0 ? 1 : -1);
  std::int64_t out = 1;
  for (std::int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(out, base, &out)) too_big(context);
  }
  return context.integer(out);
}

Value integer_operation(Context& context, std::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    return integer_power(context, a, b);
  } else {
    if (b == 0) context.raise("division by zero");
    if (op == "/") return context.number(static_cast<double>(a) / static_cast<double>(b));
    if (a == INT64_MIN && b == -1) {
      if (op == "%") return context.integer(0);
      too_big(context);
    }
    out = floor_divide(a, b);
    if (op == "%") out = a - out * b;
  }
  if (overflows) too_big(context);
  return context.integer(out);
}

Value float_operation(Context& context, std::string_view op, double a, double b) {
  if (op == "+") return context.number(a + b);
  if (op == "-") return context.number(a - b);
  if (op == "*") return context.number(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) context.raise("0.0 cannot be raised to a negative power");
    if (a < 0 && std::floor(b) != b && std::isfinite(b)) context.refuse("a complex number");
    const double out = std::pow(a, b);
    if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) context.raise("a result that is out of range");
    return context.number(out);
  }
  if (b == 0) context.raise("division by zero");
  if (op == "/") return context.number(a / b);
  return context.number(op == "%" ? float_modulo(a, b) : float_floor_divide(a, b));
}

Value repeat(Context& context, const Value& value, std::int64_t count) {
  count = std::max<std::int64_t>(count, 0);
  if (value.is_string()) {
    if (value.heap->is_markup) context.refuse("repeating a string of the filter 'safe'");
    const auto size = static_cast<std::int64_t>(value.text().size());
    if (size > 0 && count > kMaxOutputBytes / size) context.refuse("a string of more than {} bytes", kMaxOutputBytes);
    std::string out;
    if (size > 0) {
      for (std::int64_t i = 0; i < count; ++i) out += value.text();
    }
    return context.string(std::move(out));
  }
  const auto size = static_cast<std::int64_t>(value.items().size());
  if (size > 0 && count > kMaxLiveBytes / static_cast<std::int64_t>(sizeof(Value)) / size) {
    context.refuse("more than {} bytes of values", kMaxLiveBytes);
  }
  std::vector<Value> out;
  if (size > 0) {
    context.work(size * count);
    for (std::int64_t i = 0; i < count; ++i) out.insert(out.end(), value.items().begin(), value.items().end());
  }
  return context.sequence(value.type, std::move(out));
}

Value join_strings(Context& context, const Value& a, const Value& b) {
  if (!a.heap->is_markup && !b.heap->is_markup) return context.string(a.text() + b.text());
  // What `safe` returns escapes the plain strings that are added to it.
  const auto safe = [](const Value& value) { return value.heap->is_markup ? value.text() : escape_html(value.text()); };
  return context.string(safe(a) + safe(b), true);
}

bool is_sequence(const Value& value) { return value.is_string() || value.is(Type::kList) || value.is(Type::kTuple); }

}  // namespace

Value binary(Context& context, std::string_view op, const Value& a, const Value& b) {
  context.work();
  if (a.is_integral() && b.is_integral()) return integer_operation(context, op, a.as_integer(), b.as_integer());
  if (a.is_number() && b.is_number()) return float_operation(context, op, a.as_number(), b.as_number());
  if (op == "%" && a.is_string()) {
    if (a.heap->is_markup) context.refuse("'%' on a string of the filter 'safe'");
    return context.string(percent_format(context, a.text(), b));
  }
  if (op == "+" && a.is_string() && b.is_string()) return join_strings(context, a, b);
  if (op == "+" && a.type == b.type && is_sequence(a)) {
    context.work(static_cast<std::int64_t>((a.items().size() + b.items().size()) / 4));
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return context.sequence(a.type, std::move(items));
  }
  if (op == "*" && is_sequence(a) && b.is_integral()) return repeat(context, a, b.as_integer());
  if (op == "*" && is_sequence(b) && a.is_integral()) return repeat(context, b, a.as_integer());
  const bool are_views = a.is(Type::kView) || b.is(Type::kView) || (a.is(Type::kDict) && b.is(Type::kDict));
  if (are_views && (op == "-")) context.refuse("'-' on {}", type_name(a));
  wrong_operands(context, op, a, b);
}

Value negate(Context& context, const Value& value, bool is_plus) {
  if (value.is(Type::kFloat)) return context.number(is_plus ? value.number : -value.number);
  context.require_defined(value);
  if (!value.is_integral()) context.raise("{} has no sign", type_name(value));
  if (is_plus) return context.integer(value.as_integer());
  if (value.as_integer() == INT64_MIN) too_big(context);
  return context.integer(-value.as_integer());
}

bool contains(Context& context, const Value& container, const Value& item) {
  switch (container.type) {
    case Type::kString:
      context.work_bytes(container.text().size());
      return find_text(container.text(), require_text(context, item, "what is searched in a string")) != std::string::npos;
    case Type::kDict: return find_key(context, container.items(), item).has_value();
    case Type::kLoop: context.raise("{} is not iterable", type_name(container));
    default: return std::ranges::any_of(iterate(context, container), [&](const Value& other) { return equal(context, other, item); });
  }
}

bool compare(Context& context, std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equal(context, a, b);
  if (op == "!=") return !equal(context, a, b);
  if (op == "in") return contains(context, b, a);
  if (op == "not in") return !contains(context, b, a);
  const bool has_nan = (a.is(Type::kFloat) && std::isnan(a.number)) || (b.is(Type::kFloat) && std::isnan(b.number));
  if (has_nan && a.is_number() && b.is_number()) return false;
  if (op == "<") return less(context, a, b);
  if (op == ">") return less(context, b, a);
  return op == "<=" ? !less(context, b, a) : !less(context, a, b);
}

Value get_item(Context& context, const Value& object, const Value& index) {
  context.work();
  context.require_defined(object);
  const bool is_text = object.is_string();
  if (object.is(Type::kDict)) {
    if (is_hashable(index)) {
      if (const auto place = find_key(context, object.items(), index)) return object.items()[*place + 1];
    }
  } else if (index.is_integral() && (is_text || object.is(Type::kList) || object.is(Type::kTuple) || object.is(Type::kRange))) {
    const std::int64_t size = *length(object);
    if (is_text) context.work_bytes(object.text().size());
    const std::int64_t i = index.as_integer() < 0 ? index.as_integer() + size : index.as_integer();
    if (i < 0 || i >= size) return context.undefined();
    if (!is_text) return object.items()[static_cast<std::size_t>(i)];
    return get_slice(context, object, context.integer(i), context.integer(i + 1), context.none());
  }
  if (index.is_string()) {
    if (const auto attribute = python_attribute(context, object, index.text())) return *attribute;
    return context.undefined(index.text());
  }
  return context.undefined();
}

namespace {

struct Range {
  std::int64_t start = 0;
  std::int64_t step = 1;
  std::int64_t count = 0;
};

/// The indices that Python's slice picks from `size` items.
Range slice_range(Context& context, std::int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto part = [&](const Value& value, std::int64_t fallback) {
    if (value.is(Type::kNone)) return fallback;
    context.require_defined(value, ", as a part of a slice");
    return require_integer(context, value, "a part of a slice");
  };
  Range out;
  out.step = part(step, 1);
  if (out.step == 0) context.raise("a slice's step cannot be zero");
  out.step = std::clamp<std::int64_t>(out.step, -kMaxLiveBytes, kMaxLiveBytes);
  const std::int64_t low = out.step < 0 ? -1 : 0;
  const std::int64_t high = out.step < 0 ? size - 1 : size;
  const auto clamped = [&](std::int64_t i) {
    if (i < 0) i = i < -size ? low - size : i;
    return std::clamp(i < 0 ? i + size : i, low, high);
  };
  out.start = start.is(Type::kNone) ? (out.step < 0 ? high : low) : clamped(part(start, 0));
  const std::int64_t end = stop.is(Type::kNone) ? (out.step < 0 ? low : high) : clamped(part(stop, 0));
  if (out.step > 0 && out.start < end) out.count = (end - out.start + out.step - 1) / out.step;
  if (out.step < 0 && out.start > end) out.count = (out.start - end - out.step - 1) / -out.step;
  return out;
}

}  // namespace

Value get_slice(Context& context, const Value& object, const Value& start, const Value& stop, const Value& step) {
  context.require_defined(object);
  if (object.is(Type::kRange)) context.refuse("a slice of a range");
  if (!is_sequence(object)) context.raise("{} cannot be sliced", type_name(object));
  if (!object.is_string()) {
    const Range range = slice_range(context, *length(object), start, stop, step);
    std::vector<Value> items;
    for (std::int64_t i = 0; i < range.count; ++i) items.push_back(object.items()[static_cast<std::size_t>(range.start + i * range.step)]);
    return context.sequence(object.type, std::move(items));
  }
  if (object.heap->is_markup) context.refuse("a slice of a string of the filter 'safe'");
  const std::string& text = object.text();
  context.work_bytes(text.size());
  const std::int64_t size = count_code_points(text);
  const Range range = slice_range(context, size, start, stop, step);
  std::string out;
  if (size == static_cast<std::int64_t>(text.size())) {
    for (std::int64_t i = 0; i < range.count; ++i) out += text[static_cast<std::size_t>(range.start + i * range.step)];
    return context.string(std::move(out));
  }
  context.work(size / 4);
  const auto all = characters(text);
  for (std::int64_t i = 0; i < range.count; ++i) out += all[static_cast<std::size_t>(range.start + i * range.step)];
  return context.string(std::move(out));
}

}  // namespace quiver::text::jinja
