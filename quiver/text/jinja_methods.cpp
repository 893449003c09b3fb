// Attributes and methods of Python's values, as the sandbox shows them: methods that change a list or a dict are undefined.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool is_one_of(std::string_view name, Names names) { return std::ranges::find(names, name) != names.end(); }

bool is_string_method(std::string_view name) {
  return is_one_of(name,
                   {"capitalize",   "casefold",   "center",    "count",       "encode",    "endswith",     "expandtabs",   "find",
                    "format",       "format_map", "index",     "isalnum",     "isalpha",   "isascii",      "isdecimal",    "isdigit",
                    "isidentifier", "islower",    "isnumeric", "isprintable", "isspace",   "istitle",      "isupper",      "join",
                    "ljust",        "lower",      "lstrip",    "maketrans",   "partition", "removeprefix", "removesuffix", "replace",
                    "rfind",        "rindex",     "rjust",     "rpartition",  "rsplit",    "rstrip",       "split",        "splitlines",
                    "startswith",   "strip",      "swapcase",  "title",       "translate", "upper",        "zfill"});
}

/// True for what an object of this type has in Python and Quiver does not.
bool is_refused_attribute(const Value& object, std::string_view name) {
  switch (object.type) {
    case Type::kBool:
    case Type::kInt:
      return is_one_of(name, {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag", "numerator",
                              "real", "to_bytes"});
    case Type::kFloat: return is_one_of(name, {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real"});
    case Type::kRange: return is_one_of(name, {"count", "index", "start", "step", "stop"});
    case Type::kView: return is_one_of(name, {"isdisjoint", "mapping"});
    case Type::kGenerator: return is_one_of(name, {"close", "send", "throw"});
    case Type::kMacro: return is_one_of(name, {"arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller", "name"});
    default: return false;
  }
}

/// The text searched for and the optional bounds, which Quiver does not take.
const std::string& only_text(Context& context, const std::string& callee, const Arguments& arguments) {
  if (arguments.positional.empty()) context.raise("{} needs an argument", callee);
  if (arguments.positional.size() > 1) context.refuse("the bounds of {}, which Quiver does not implement", callee);
  return require_text(context, arguments.positional[0], "the argument of " + callee);
}

bool has_affix(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments, bool at_start) {
  const auto matches = [&](const Value& affix) {
    const std::string& part = require_text(context, affix, "the argument of " + callee);
    return at_start ? text.starts_with(part) : text.ends_with(part);
  };
  if (arguments.positional.size() != 1 || !arguments.positional[0].is(Type::kTuple)) {
    only_text(context, callee, arguments);
    return matches(arguments.positional[0]);
  }
  const auto& affixes = arguments.positional[0].items();
  context.work(static_cast<std::int64_t>(affixes.size()));
  return std::ranges::any_of(affixes, matches);
}

Value strip_method(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments, bool left,
                   bool right) {
  const auto given = bind_arguments(context, callee, arguments, {"chars"});
  if (!given[0] || given[0]->is(Type::kNone)) return context.string(std::string(strip(text, {}, false, left, right)));
  const std::string& set = require_text(context, *given[0], "the argument of " + callee);
  if (set.size() > 1024) context.refuse("more than 1024 bytes of characters for {}", callee);
  context.work_bytes(text.size() * (1 + set.size() / 8));
  return context.string(std::string(strip(text, set, true, left, right)));
}

/// Python's split(None, max_splits): the part that is left over keeps the white space at its outer end.
std::vector<std::string_view> split_at_space(std::string_view text, std::int64_t max_splits, bool from_right) {
  std::vector<std::string_view> words;
  for (std::size_t i = 0; i < text.size();) {
    const std::string_view rest = strip(text.substr(i), {}, false, true, false);
    const std::size_t begin = text.size() - rest.size();
    std::size_t end = begin;
    while (end < text.size()) {
      const CodePoint point = code_point_at(text, static_cast<std::int64_t>(end));
      if (is_python_space(point.value)) break;
      end += static_cast<std::size_t>(point.num_bytes);
    }
    if (end > begin) words.push_back(text.substr(begin, end - begin));
    i = end;
  }
  const auto num_words = static_cast<std::int64_t>(words.size());
  if (max_splits < 0 || num_words <= max_splits) return words;
  const auto num_kept = static_cast<std::ptrdiff_t>(max_splits);
  if (from_right) {
    const std::string_view last = *(words.end() - num_kept - 1);
    const auto size = static_cast<std::size_t>(last.data() + last.size() - text.data());
    words.erase(words.begin(), words.end() - num_kept);
    words.insert(words.begin(), text.substr(0, size));
  } else {
    const auto begin = static_cast<std::size_t>(words[static_cast<std::size_t>(max_splits)].data() - text.data());
    words.erase(words.begin() + num_kept, words.end());
    words.push_back(text.substr(begin));
  }
  return words;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, std::int64_t max_splits, bool from_right) {
  std::vector<std::size_t> places;
  const auto is_full = [&] { return max_splits >= 0 && static_cast<std::int64_t>(places.size()) == max_splits; };
  if (from_right && max_splits >= 0) {
    for (std::size_t end = text.size(); !is_full() && end >= separator.size(); end = places.back()) {
      const std::size_t place = text.rfind(separator, end - separator.size());
      if (place == std::string_view::npos) break;
      places.push_back(place);
    }
    std::ranges::reverse(places);
  } else {
    for (std::size_t i = find_text(text, separator); i != std::string_view::npos && !is_full();
         i = find_text(text, separator, i + separator.size())) {
      places.push_back(i);
    }
  }
  std::vector<std::string_view> out;
  std::size_t begin = 0;
  for (const std::size_t place : places) {
    out.push_back(text.substr(begin, place - begin));
    begin = place + separator.size();
  }
  out.push_back(text.substr(begin));
  return out;
}

Value strings(Context& context, Type type, const auto& parts) {
  std::vector<Value> items;
  for (const auto& part : parts) items.push_back(context.string(std::string(part)));
  return context.sequence(type, std::move(items));
}

Value split_method(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments, bool from_right) {
  const auto given = bind_arguments(context, callee, arguments, {"sep", "maxsplit"});
  const std::int64_t max_splits = given[1] ? require_integer(context, *given[1], "maxsplit") : -1;
  context.work_bytes(text.size());
  if (!given[0] || given[0]->is(Type::kNone)) {
    return strings(context, Type::kList, split_at_space(text, max_splits, from_right));
  }
  const std::string& separator = require_text(context, *given[0], "the argument of " + callee);
  if (separator.empty()) context.raise("an empty separator for {}", callee);
  if (from_right && max_splits >= 0) context.work(static_cast<std::int64_t>(text.size() * separator.size() / 64));
  return strings(context, Type::kList, split_at(text, separator, max_splits, from_right));
}

Value partition(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments, bool from_right) {
  const std::string& separator = only_text(context, callee, arguments);
  if (separator.empty()) context.raise("an empty separator for {}", callee);
  context.work(static_cast<std::int64_t>(text.size() * (from_right ? separator.size() : 1) / 64));
  const std::size_t place = from_right ? text.rfind(separator) : find_text(text, separator);
  using Parts = std::vector<std::string>;
  if (place == std::string::npos) return strings(context, Type::kTuple, from_right ? Parts{"", "", text} : Parts{text, "", ""});
  return strings(context, Type::kTuple, Parts{text.substr(0, place), separator, text.substr(place + separator.size())});
}

Value find_method(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments, bool from_right,
                  bool raises) {
  const std::string& part = only_text(context, callee, arguments);
  context.work(1 + static_cast<std::int64_t>(text.size() * (from_right ? part.size() + 1 : 1) / 64));
  const std::size_t place = from_right ? text.rfind(part) : find_text(text, part);
  if (place != std::string::npos) return context.integer(count_code_points(std::string_view(text).substr(0, place)));
  if (raises) context.raise("{} did not find its argument", callee);
  return context.integer(-1);
}

std::int64_t count_text(const std::string& text, const std::string& part) {
  if (part.empty()) return count_code_points(text) + 1;
  std::int64_t count = 0;
  for (std::size_t i = find_text(text, part); i != std::string::npos; i = find_text(text, part, i + part.size())) ++count;
  return count;
}

Value replace_method(Context& context, const std::string& callee, const std::string& text, const Arguments& arguments) {
  const auto given = bind_arguments(context, callee, arguments, {"old", "new", "count"}, 2);
  const std::int64_t count = given[2] ? require_integer(context, *given[2], "count") : -1;
  return context.string(replace(context, text, require_text(context, *given[0], "the first argument of " + callee),
                                require_text(context, *given[1], "the second argument of " + callee), count));
}

Value join_method(Context& context, const std::string& callee, const std::string& separator, const Arguments& arguments) {
  if (arguments.positional.size() != 1) context.raise("{} takes one argument", callee);
  std::string out;
  bool is_first = true;
  for (const Value& item : iterate(context, arguments.positional[0])) {
    if (!is_first) out += separator;
    is_first = false;
    out += require_text(context, item, "an item of " + callee);
    context.check_size(out);
  }
  return context.string(std::move(out));
}

bool is_ascii_class(Context& context, const std::string& callee, const std::string& text, bool (*is_member)(char)) {
  if (!is_ascii(text)) context.refuse("{} on characters other than ASCII", callee);
  return !text.empty() && std::ranges::all_of(text, is_member);
}

bool is_decimal(char c) { return c >= '0' && c <= '9'; }
bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Python's str.title: a letter after something that is no letter is upper case.
std::string title_case(Context& context, const std::string& text) {
  std::string out;
  bool after_letter = false;
  if (!is_ascii(text)) context.refuse("str.title() on characters other than ASCII");
  for (const char c : text) {
    const std::string one(1, c);
    out += after_letter ? lowercase(one) : upper(context, one);
    after_letter = is_ascii_letter(c);
  }
  return out;
}

/// Methods without arguments.
std::optional<Value> simple_method(Context& context, std::string_view name, const std::string& callee, const std::string& text) {
  if (name == "isdigit" || name == "isdecimal" || name == "isnumeric")
    return context.boolean(is_ascii_class(context, callee, text, is_decimal));
  if (name == "isalpha") return context.boolean(is_ascii_class(context, callee, text, is_ascii_letter));
  if (name == "isalnum")
    return context.boolean(is_ascii_class(context, callee, text, [](char c) { return is_decimal(c) || is_ascii_letter(c); }));
  if (name == "isspace") return context.boolean(!text.empty() && strip(text, {}, false, true, false).empty());
  if (name == "isupper" || name == "islower") return context.boolean(apply_test(context, name.substr(2), context.string(text), {}));
  if (name == "upper") return context.string(upper(context, text));
  if (name == "lower") return context.string(lowercase(text));
  if (name == "capitalize") return context.string(capitalize(context, text));
  if (name == "title") return context.string(title_case(context, text));
  return std::nullopt;
}

Value call_string(Context& context, std::string_view name, const Value& receiver, const Arguments& arguments) {
  const std::string callee = format("str.{}()", name);
  const std::string& text = receiver.text();
  if (receiver.heap->is_markup) context.refuse("{} on a string of the filter 'safe'", callee);
  if (name == "format") return context.string(format_string(context, text, arguments));
  context.work_bytes(text.size());
  if (name == "split" || name == "rsplit") return split_method(context, callee, text, arguments, name == "rsplit");
  if (name == "splitlines") {
    const auto given = bind_arguments(context, callee, arguments, {"keepends"});
    return strings(context, Type::kList, split_lines(text, given[0] && truth(*given[0])));
  }
  if (!arguments.named.empty()) context.raise("{} takes no named arguments", callee);
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    return strip_method(context, callee, text, arguments, name != "rstrip", name != "lstrip");
  }
  if (name == "startswith" || name == "endswith") {
    return context.boolean(has_affix(context, callee, text, arguments, name == "startswith"));
  }
  if (name == "replace") return replace_method(context, callee, text, arguments);
  if (name == "join") return join_method(context, callee, text, arguments);
  if (name == "find" || name == "rfind") return find_method(context, callee, text, arguments, name == "rfind", false);
  if (name == "index" || name == "rindex") return find_method(context, callee, text, arguments, name == "rindex", true);
  if (name == "count") return context.integer(count_text(text, only_text(context, callee, arguments)));
  if (name == "partition" || name == "rpartition") return partition(context, callee, text, arguments, name == "rpartition");
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string& part = only_text(context, callee, arguments);
    if (name == "removeprefix") return context.string(text.starts_with(part) ? text.substr(part.size()) : text);
    return context.string(text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text);
  }
  const auto simple = simple_method(context, name, callee, text);
  if (!simple) context.refuse("{}, which Quiver does not implement", callee);
  if (!arguments.positional.empty()) context.raise("{} takes no arguments", callee);
  return *simple;
}

Value call_dict(Context& context, std::string_view name, const Value& dict, const Arguments& arguments) {
  const std::string callee = format("dict.{}()", name);
  if (!arguments.named.empty()) context.raise("{} takes no named arguments", callee);
  const auto& items = dict.items();
  if (name == "get") {
    const auto given = bind_arguments(context, callee, arguments, {"key", "default"}, 1);
    if (const auto place = find_key(context, items, *given[0])) return items[*place + 1];
    return given[1] ? *given[1] : context.none();
  }
  if (name == "fromkeys") context.refuse("{}, which Quiver does not implement", callee);
  if (!arguments.positional.empty()) context.raise("{} takes no arguments", callee);
  if (name == "copy") return dict;
  std::vector<Value> out = name == "items" ? pairs(context, dict) : std::vector<Value>{};
  for (std::size_t i = name == "keys" ? 0 : 1; i < items.size() && name != "items"; i += 2) out.push_back(items[i]);
  return context.sequence(Type::kView, std::move(out), format("dict_{}", name));
}

Value call_list(Context& context, std::string_view name, const Value& list, const Arguments& arguments) {
  const std::string callee = format("{}.{}()", type_name(list), name);
  if (!arguments.named.empty()) context.raise("{} takes no named arguments", callee);
  if (name == "copy") return list;
  if (arguments.positional.empty()) context.raise("{} needs an argument", callee);
  if (arguments.positional.size() > 1) context.refuse("the bounds of {}, which Quiver does not implement", callee);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < list.items().size(); ++i) {
    if (!equal(context, list.items()[i], arguments.positional[0])) continue;
    if (name == "index") return context.integer(static_cast<std::int64_t>(i));
    ++count;
  }
  if (name == "index") context.raise("{} did not find its argument", callee);
  return context.integer(count);
}

}  // namespace

std::optional<Value> python_attribute(Context& context, const Value& object, std::string_view name) {
  if (name.starts_with("__")) return context.undefined(name);
  switch (object.type) {
    case Type::kString:
      if (is_string_method(name)) return context.method(object, name);
      return std::nullopt;
    case Type::kDict:
      if (is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"})) return context.undefined(name);
      if (is_one_of(name, {"copy", "fromkeys", "get", "items", "keys", "values"})) return context.method(object, name);
      return std::nullopt;
    case Type::kList:
      if (is_one_of(name, {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"})) return context.undefined(name);
      if (is_one_of(name, {"copy", "count", "index"})) return context.method(object, name);
      return std::nullopt;
    case Type::kTuple:
      if (is_one_of(name, {"count", "index"})) return context.method(object, name);
      return std::nullopt;
    case Type::kNamespace:
      if (const Value* value = object.space->find(name)) return *value;
      return std::nullopt;
    case Type::kLoop: return loop_attribute(context, object, name);
    default:
      if (is_refused_attribute(object, name)) context.refuse("the attribute '{}' of {}", name, type_name(object));
      return std::nullopt;
  }
}

Value get_attribute(Context& context, const Value& object, std::string_view name) {
  context.work();
  if (object.is(Type::kUndefined)) context.raise("'{}' is undefined, and has no attribute '{}'", object.text(), name);
  if (auto attribute = python_attribute(context, object, name)) return *attribute;
  if (object.is(Type::kDict)) {
    if (const Value* member = find_member(context, object, name)) return *member;
  }
  return context.undefined(name);
}

Value call_method(Context& context, const Value& method, const Arguments& arguments) {
  context.work();
  const Value& receiver = method.items()[0];
  const std::string& name = method.text();
  if (receiver.is_string()) return call_string(context, name, receiver, arguments);
  if (receiver.is(Type::kDict)) return call_dict(context, name, receiver, arguments);
  if (!receiver.is(Type::kLoop)) return call_list(context, name, receiver, arguments);
  if (name != "cycle") context.refuse("loop.{}(), which Quiver does not implement", name);
  if (arguments.positional.empty() || !arguments.named.empty()) context.raise("loop.cycle() needs values");
  const auto index = static_cast<std::size_t>(std::max<std::int64_t>(receiver.heap->loop->index0, 0));
  return arguments.positional[index % arguments.positional.size()];
}

namespace {

/// The argument that a field of str.format() names; `next` counts fields without a name.
Value format_field(Context& context, const std::string& field, const Arguments& arguments, std::int64_t& next) {
  if (field.find_first_of(":!.[") != std::string::npos) context.refuse("the field '{{{}}}' of str.format()", field);
  const bool is_number = !field.empty() && std::ranges::all_of(field, is_decimal);
  if (field.empty() || is_number) {
    if (field.empty() ? next < 0 : next > 0) context.raise("str.format() with numbered and other fields");
    std::size_t place = 0;
    if (field.empty()) {
      place = static_cast<std::size_t>(next++);
    } else {
      next = -1;
      if (field.size() > 9) context.raise("str.format() has no argument {}", field);
      std::from_chars(field.data(), field.data() + field.size(), place);
    }
    if (place >= arguments.positional.size()) context.raise("str.format() has no argument {}", place);
    return arguments.positional[place];
  }
  for (const auto& [name, value] : arguments.named) {
    if (name == field) return value;
  }
  context.raise("str.format() has no argument '{}'", field);
}

}  // namespace

std::string format_string(Context& context, std::string_view pattern, const Arguments& arguments) {
  std::string out;
  std::int64_t next = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const bool is_double = i + 1 < pattern.size() && pattern[i + 1] == c;
    if ((c != '{' && c != '}') || is_double) {
      out += c;
      if (c == '{' || c == '}') ++i;
      continue;
    }
    const std::size_t end = pattern.find('}', i);
    if (c == '}' || end == std::string_view::npos) context.raise("str.format() with a single '{}'", std::string_view(&c, 1));
    const std::string field(pattern.substr(i + 1, end - i - 1));
    if (field.find('{') != std::string::npos) context.refuse("a field inside a field of str.format()");
    out += str(context, format_field(context, field, arguments, next));
    context.check_size(out);
    i = end;
  }
  return out;
}

std::string percent_format(Context& context, std::string_view pattern, const Value& operand) {
  const bool is_tuple = operand.is(Type::kTuple);
  const std::vector<Value> values = is_tuple ? operand.items() : std::vector<Value>{operand};
  std::string out;
  std::size_t next = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      out += pattern[i];
      continue;
    }
    if (++i == pattern.size()) context.raise("'%' at the end of a format");
    const char conversion = pattern[i];
    if (conversion == '%') {
      out += '%';
      continue;
    }
    if (std::string_view("srdi").find(conversion) == std::string_view::npos) {
      context.refuse("the conversion '%{}'", std::string_view(&conversion, static_cast<unsigned char>(conversion) < 0x80 ? 1 : 0));
    }
    if (next >= values.size()) context.raise("not enough values for a format");
    const Value& value = values[next++];
    if (conversion == 's') {
      out += str(context, value);
    } else if (conversion == 'r') {
      out += repr(context, value);
    } else {
      if (!value.is_number()) context.raise("'%{}' needs a number, not {}", std::string_view(&conversion, 1), type_name(value));
      if (value.is(Type::kFloat) && !(std::abs(value.number) < 9e18)) context.refuse("an integer beyond 64 bits");
      out += format("{}", value.is(Type::kFloat) ? static_cast<std::int64_t>(value.number) : value.as_integer());
    }
    context.check_size(out);
  }
  const bool is_mapping = operand.is(Type::kDict) || operand.is(Type::kList) || operand.is(Type::kRange) || operand.is(Type::kUndefined);
  if (next < values.size() && !is_mapping) context.raise("not all values of a format are used");
  return out;
}

}  // namespace quiver::text::jinja
