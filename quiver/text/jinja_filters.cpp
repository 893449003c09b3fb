// Filters.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {
namespace {

/// A filter that takes the arguments named in its row.
struct NamedFilter {
  std::string_view name;
  Value (*filter)(Context&, const Value& input, const Given&);
  std::array<std::string_view, 4> parameters = {};
  std::size_t num_required = 0;
};

/// A filter that takes whatever arguments are given.
struct OpenFilter {
  std::string_view name;
  Value (*filter)(Context&, const Value& input, const Arguments&);
};

/// jinja2's soft_str for filters whose result Quiver does not mark as safe.
std::string plain_text(Context& context, const Value& value, std::string_view name) {
  if (value.is_string() && value.heap->is_markup) context.refuse("the filter '{}' on a string of the filter 'safe'", name);
  return str(context, value);
}

/// The item at a path such as "a.b.0", as environment.getitem looks each part up.
Value at_path(Context& context, Value item, const Value& path, const std::optional<Value>& fallback = std::nullopt) {
  const auto step = [&](const Value& part) {
    item = get_item(context, item, part);
    if (item.is(Type::kUndefined) && fallback && !fallback->is(Type::kNone)) item = *fallback;
  };
  if (path.is(Type::kNone)) return item;
  if (!path.is_string()) {
    step(path);
    return item;
  }
  const std::string& text = path.text();
  context.work_bytes(text.size());
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    std::int64_t index = 0;
    const bool is_index = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string::npos;
    if (is_index) std::from_chars(part.data(), part.data() + part.size(), index);
    step(is_index ? context.integer(index) : context.string(part));
    begin = end + 1;
  }
  return item;
}

Value folded(Context& context, const Value& value, bool is_case_sensitive) {
  return value.is_string() && !is_case_sensitive ? context.string(lowercase(value.text())) : value;
}

/// The list of `items` in the order of their `keys`; raises where Python cannot compare two of them.
Value sorted(Context& context, const std::vector<Value>& items, const std::vector<Value>& keys, bool is_reverse) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Python keeps the order of equal items in reverse too.
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return is_reverse ? less(context, keys[b], keys[a]) : less(context, keys[a], keys[b]); });
  std::vector<Value> out;
  for (const std::size_t i : order) out.push_back(items[i]);
  return context.sequence(Type::kList, std::move(out));
}

bool flag(const std::optional<Value>& value) { return value && truth(*value); }

Value filter_sort(Context& context, const Value& input, const Given& given) {
  const Value attribute = given[2] ? *given[2] : context.none();
  std::vector<Value> paths{attribute};
  if (attribute.is_string()) {
    const Arguments comma{.positional = {context.string(",")}, .named = {}};
    paths = iterate(context, call_method(context, context.method(attribute, "split"), comma));
  }
  const auto items = iterate(context, input);
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const Value& path : paths) key.push_back(folded(context, at_path(context, item, path), flag(given[1])));
    keys.push_back(context.sequence(Type::kList, std::move(key)));
  }
  return sorted(context, items, keys, flag(given[0]));
}

Value filter_dictsort(Context& context, const Value& input, const Given& given) {
  const std::string by = given[1] ? str(context, *given[1]) : "key";
  if (by != "key" && by != "value") context.raise("the filter 'dictsort' sorts by 'key' or 'value'");
  if (!input.is(Type::kDict)) context.raise("the filter 'dictsort' needs a dict, not {}", type_name(input));
  const auto& items = input.items();
  std::vector<Value> keys;
  for (std::size_t i = by == "key" ? 0 : 1; i < items.size(); i += 2) keys.push_back(folded(context, items[i], flag(given[0])));
  return sorted(context, pairs(context, input), keys, flag(given[2]));
}

Value filter_unique(Context& context, const Value& input, const Given& given) {
  std::vector<Value> seen;
  std::vector<Value> out;
  for (const Value& item : iterate(context, input)) {
    const Value key = folded(context, at_path(context, item, given[1] ? *given[1] : context.none()), flag(given[0]));
    if (find_key(context, seen, key)) continue;
    put(context, seen, key, key);
    out.push_back(item);
  }
  return context.sequence(Type::kGenerator, std::move(out));
}

template <bool is_max>
Value extreme(Context& context, const Value& input, const Given& given) {
  const auto items = iterate(context, input);
  if (items.empty()) return context.undefined();
  const auto key = [&](const Value& item) {
    return folded(context, at_path(context, item, given[1] ? *given[1] : context.none()), flag(given[0]));
  };
  Value best = items[0];
  Value best_key = key(best);
  for (std::size_t i = 1; i < items.size(); ++i) {
    Value next_key = key(items[i]);
    if (!(is_max ? less(context, best_key, next_key) : less(context, next_key, best_key))) continue;
    best = items[i];
    best_key = std::move(next_key);
  }
  return best;
}

Value filter_map(Context& context, const Value& input, const Arguments& arguments) {
  std::vector<Value> out;
  if (!truth(input)) return context.sequence(Type::kGenerator, {});
  if (arguments.positional.empty()) {
    const auto given = bind_arguments(context, "the filter 'map'", arguments, {"attribute", "default"}, 1);
    for (const Value& item : iterate(context, input)) out.push_back(at_path(context, item, *given[0], given[1]));
    return context.sequence(Type::kGenerator, std::move(out));
  }
  const std::string name = require_text(context, arguments.positional[0], "the first argument of the filter 'map'");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : iterate(context, input)) out.push_back(apply_filter(context, name, item, rest));
  return context.sequence(Type::kGenerator, std::move(out));
}

/// select, reject, selectattr, rejectattr: items whose test, or whose truth, is `wanted`.
Value choose(Context& context, const Value& input, const Arguments& arguments, bool wanted, bool by_attribute) {
  std::vector<Value> out;
  if (!truth(input)) return context.sequence(Type::kGenerator, {});
  Arguments rest = arguments;
  const auto take = [&](std::string_view what) {
    if (rest.positional.empty()) context.raise("a filter needs {}", what);
    const Value first = rest.positional[0];
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  const Value attribute = by_attribute ? take("an attribute") : context.none();
  const bool has_test = !rest.positional.empty();
  const std::string name = has_test ? require_text(context, take("a test"), "a test's name") : "";
  for (const Value& item : iterate(context, input)) {
    const Value value = at_path(context, item, attribute);
    const bool passes = has_test ? apply_test(context, name, value, rest) : truth(value);
    if (passes == wanted) out.push_back(item);
  }
  return context.sequence(Type::kGenerator, std::move(out));
}

Value filter_join(Context& context, const Value& input, const Given& given) {
  const std::string separator = given[0] ? str(context, *given[0]) : "";
  std::string out;
  bool is_first = true;
  for (const Value& item : iterate(context, input)) {
    if (!is_first) out += separator;
    is_first = false;
    out += str(context, given[1] ? at_path(context, item, *given[1]) : item);
    context.check_size(out);
  }
  return context.string(std::move(out));
}

std::string indentation(Context& context, const Value& width) {
  if (width.is_string()) return width.text();
  const std::int64_t count = require_integer(context, width, "the width of an indentation");
  if (count > 1000) context.refuse("an indentation of more than 1000 spaces");
  return std::string(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), ' ');
}

Value filter_indent(Context& context, const Value& input, const Given& given) {
  if (!input.is_string()) context.raise("the filter 'indent' needs a string, not {}", type_name(input));
  const std::string margin = indentation(context, given[0] ? *given[0] : context.integer(4));
  const auto lines = split_lines(plain_text(context, input, "indent") + "\n", false);
  std::string out = flag(given[1]) ? margin : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (flag(given[2]) || !lines[i].empty())) out += margin;
    out += lines[i];
    context.check_size(out);
  }
  return context.string(std::move(out));
}

Value filter_tojson(Context& context, const Value& input, const Given& given) {
  JsonStyle style;
  style.ensure_ascii = flag(given[0]);
  style.sort_keys = flag(given[3]);
  if (given[1] && !given[1]->is(Type::kNone)) style.indent = indentation(context, *given[1]);
  style.item_separator = style.indent ? "," : ", ";
  style.key_separator = ": ";
  if (given[2] && !given[2]->is(Type::kNone)) {
    const auto pair = iterate(context, *given[2]);
    if (pair.size() != 2) context.raise("the separators of the filter 'tojson' must be two");
    style.item_separator = require_text(context, pair[0], "a separator of the filter 'tojson'");
    style.key_separator = require_text(context, pair[1], "a separator of the filter 'tojson'");
  }
  return context.string(to_json(context, input, style));
}

Value filter_default(Context& context, const Value& input, const Given& given) {
  if (!input.is(Type::kUndefined) && !(flag(given[1]) && !truth(input))) return input;
  return given[0] ? *given[0] : context.string("");
}

Value filter_title(Context& context, const Value& input, const Given&) {
  const std::string text = plain_text(context, input, "title");
  std::string out;
  std::string word;
  const auto flush = [&] {
    out += capitalize(context, word);
    word.clear();
  };
  for (const std::string_view character : characters(text)) {
    const bool is_break =
        strip(character, {}, false, true, false).empty() || std::string_view("-({[<").find(character) != std::string_view::npos;
    if (is_break) flush();
    is_break ? out += character : word += character;
  }
  flush();
  return context.string(std::move(out));
}

Value filter_replace(Context& context, const Value& input, const Given& given) {
  const bool has_count = given[2] && !given[2]->is(Type::kNone);
  const std::int64_t count = has_count ? require_integer(context, *given[2], "count") : -1;
  return context.string(replace(context, plain_text(context, input, "replace"), str(context, *given[0]), str(context, *given[1]), count));
}

Value filter_trim(Context& context, const Value& input, const Given& given) {
  const std::string text = plain_text(context, input, "trim");
  if (!given[0] || given[0]->is(Type::kNone)) return context.string(std::string(strip(text, {}, false, true, true)));
  return call_method(context, context.method(context.string(text), "strip"), {.positional = {*given[0]}, .named = {}});
}

Value filter_length(Context& context, const Value& input, const Given&) {
  const auto size = length(input);
  if (!size) context.raise("{} has no length", type_name(input));
  if (input.is_string()) context.work_bytes(input.text().size());
  return context.integer(*size);
}

Value filter_first(Context& context, const Value& input, const Given&) {
  if (input.is(Type::kGenerator)) {
    return input.heap->next < input.items().size() ? input.items()[input.heap->next++] : context.undefined();
  }
  if (input.is_string()) return get_item(context, input, context.integer(0));
  const auto items = iterate(context, input);
  return items.empty() ? context.undefined() : items.front();
}

Value filter_last(Context& context, const Value& input, const Given&) {
  if (input.is(Type::kGenerator)) context.raise("a generator cannot be reversed");
  if (input.is_string()) return get_item(context, input, context.integer(-1));
  const auto items = iterate(context, input);
  return items.empty() ? context.undefined() : items.back();
}

Value filter_reverse(Context& context, const Value& input, const Given&) {
  if (input.is_string()) return get_slice(context, input, context.none(), context.none(), context.integer(-1));
  auto items = iterate(context, input);
  std::ranges::reverse(items);
  return context.sequence(Type::kGenerator, std::move(items));
}

Value filter_items(Context& context, const Value& input, const Given&) {
  if (input.is(Type::kUndefined)) return context.sequence(Type::kGenerator, {});
  if (!input.is(Type::kDict)) context.raise("the filter 'items' needs a dict, not {}", type_name(input));
  return context.sequence(Type::kGenerator, pairs(context, input));
}

Value filter_sum(Context& context, const Value& input, const Given& given) {
  Value total = given[1] ? *given[1] : context.integer(0);
  if (total.is_string()) context.raise("the filter 'sum' does not add strings");
  for (const Value& item : iterate(context, input)) {
    total = binary(context, "+", total, given[0] ? at_path(context, item, *given[0]) : item);
  }
  return total;
}

Value filter_abs(Context& context, const Value& input, const Given&) {
  if (input.is(Type::kFloat)) return context.number(std::abs(input.number));
  return negate(context, input, !(input.is_integral() && input.as_integer() < 0));
}

template <std::string (*function)(Context&, std::string_view)>
Value text_filter(Context& context, const Value& input, const Given&) {
  return context.string(function(context, plain_text(context, input, "of case")));
}
std::string lower_case(Context&, std::string_view text) { return lowercase(text); }

constexpr NamedFilter kFilters[] = {
    {"abs", filter_abs},
    {"capitalize", text_filter<capitalize>},
    {"count", filter_length},
    {"d", filter_default, {"default_value", "boolean"}},
    {"default", filter_default, {"default_value", "boolean"}},
    {"dictsort", filter_dictsort, {"case_sensitive", "by", "reverse"}},
    {"first", filter_first},
    {"float", filter_float, {"default"}},
    {"indent", filter_indent, {"width", "first", "blank"}},
    {"int", filter_int, {"default", "base"}},
    {"items", filter_items},
    {"join", filter_join, {"d", "attribute"}},
    {"last", filter_last},
    {"length", filter_length},
    {"lower", text_filter<lower_case>},
    {"max", extreme<true>, {"case_sensitive", "attribute"}},
    {"min", extreme<false>, {"case_sensitive", "attribute"}},
    {"replace", filter_replace, {"old", "new", "count"}, 2},
    {"reverse", filter_reverse},
    {"round", filter_round, {"precision", "method"}},
    {"sort", filter_sort, {"reverse", "case_sensitive", "attribute"}},
    {"sum", filter_sum, {"attribute", "start"}},
    {"title", filter_title},
    {"tojson", filter_tojson, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", filter_trim, {"chars"}},
    {"unique", filter_unique, {"case_sensitive", "attribute"}},
    {"upper", text_filter<upper>},
};

constexpr OpenFilter kOpenFilters[] = {
    {"list", [](Context& c, const Value& v, const Arguments&) { return c.sequence(Type::kList, iterate(c, v)); }},
    {"map", filter_map},
    {"reject", [](Context& c, const Value& v, const Arguments& a) { return choose(c, v, a, false, false); }},
    {"rejectattr", [](Context& c, const Value& v, const Arguments& a) { return choose(c, v, a, false, true); }},
    {"safe", [](Context& c, const Value& v, const Arguments&) { return c.string(str(c, v), true); }},
    {"select", [](Context& c, const Value& v, const Arguments& a) { return choose(c, v, a, true, false); }},
    {"selectattr", [](Context& c, const Value& v, const Arguments& a) { return choose(c, v, a, true, true); }},
    {"string", [](Context& c, const Value& v, const Arguments&) { return v.is_string() ? v : c.string(str(c, v)); }},
};

constexpr std::string_view kOtherFilters[] = {"attr",   "batch",     "center",    "e",        "escape", "filesizeformat", "forceescape",
                                              "format", "groupby",   "pprint",    "random",   "slice",  "striptags",      "truncate",
                                              "urlize", "urlencode", "wordcount", "wordwrap", "xmlattr"};

}  // namespace

Known knows_filter(std::string_view name) {
  if (find_row(kFilters, name) != nullptr || find_row(kOpenFilters, name) != nullptr) return Known::kYes;
  return std::ranges::find(kOtherFilters, name) == std::end(kOtherFilters) ? Known::kNo : Known::kInJinja;
}

Value apply_filter(Context& context, std::string_view name, const Value& input, const Arguments& arguments) {
  context.work();
  if (const auto* row = find_row(kOpenFilters, name)) return row->filter(context, input, arguments);
  if (const auto* row = find_row(kFilters, name)) {
    const std::span names(row->parameters.begin(), std::ranges::find(row->parameters, ""));
    const bool is_bare = arguments.positional.empty() && arguments.named.empty() && row->num_required == 0;
    return row->filter(
        context, input,
        is_bare ? Given(names.size()) : bind_arguments(context, format("the filter '{}'", name), arguments, names, row->num_required));
  }
  if (knows_filter(name) == Known::kNo) context.raise("there is no filter '{}'", name);
  context.refuse("the filter '{}', which Quiver does not implement", name);
}

}  // namespace quiver::text::jinja
