// Values: how they are made within the bounds, and Python's truth, equality, order and iteration.
#include <compare>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {

void Context::fail_at(ErrorKind kind, const std::string& message) const { fail(kind, "{}: line {}: {}", origin_, line, message); }

void Context::work(std::int64_t steps) {
  steps_ += steps;
  if (steps_ > options_.max_steps) refuse("more than {} steps", options_.max_steps);
}

Value Context::allocated(Type type, std::size_t bytes) {
  const auto total = static_cast<std::int64_t>(bytes + sizeof(Heap));
  if (live_->count + total > kMaxLiveBytes) refuse("more than {} bytes of values", kMaxLiveBytes);
  Value value(type);
  value.heap = std::make_shared<Heap>();
  live_->count += total;
  value.heap->bytes = total;
  value.heap->live = live_;
  return value;
}

Value Context::named(Type type, std::string text) {
  Value value = allocated(type, text.size());
  value.heap->text = std::move(text);
  return value;
}

Value Context::string(std::string text, bool is_markup) {
  check_size(text);
  work_bytes(text.size());
  Value value = named(Type::kString, std::move(text));
  value.heap->is_markup = is_markup;
  return value;
}

Value Context::sequence(Type type, std::vector<Value> items, std::string text) {
  work(1 + static_cast<std::int64_t>(items.size() / 4));
  Value value = allocated(type, items.size() * sizeof(Value));
  value.heap->depth = 1;
  for (const Value& item : items) {
    if (item.heap) value.heap->depth = std::max(value.heap->depth, item.heap->depth + 1);
  }
  value.heap->items = std::move(items);
  value.heap->text = std::move(text);
  if (value.heap->depth > kMaxValueDepth) refuse("values of more than {} levels", kMaxValueDepth);
  return value;
}

Value Context::make_namespace(std::vector<std::pair<std::string, Value>> members) {
  work(16);
  Value value(Type::kNamespace);
  namespaces_.push_back(std::make_unique<Namespace>());
  namespaces_.back()->members = std::move(members);
  value.space = namespaces_.back().get();
  return value;
}

Value Context::from_json(const nlohmann::ordered_json& json) {
  using Json = nlohmann::ordered_json;
  switch (json.type()) {
    case Json::value_t::null: return none();
    case Json::value_t::boolean: return boolean(json.get<bool>());
    case Json::value_t::number_integer: return integer(json.get<std::int64_t>());
    case Json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(INT64_MAX)) refuse("an integer beyond 64 bits in the variables");
      return integer(static_cast<std::int64_t>(number));
    }
    case Json::value_t::number_float: return number(json.get<double>());
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (!is_valid_utf8(text)) raise("a string in the variables is not valid UTF-8");
      return string(text);
    }
    default: break;
  }
  if (!json.is_structured()) refuse("binary data in the variables");
  std::vector<Value> items;
  if (json.is_array()) {
    for (const auto& item : json) items.push_back(from_json(item));
    return sequence(Type::kList, std::move(items));
  }
  for (const auto& [key, item] : json.items()) {
    if (!is_valid_utf8(key)) raise("a key in the variables is not valid UTF-8");
    items.push_back(string(key));
    items.push_back(from_json(item));
  }
  return sequence(Type::kDict, std::move(items));
}

Given bind_arguments(Context& context, std::string_view callee, const Arguments& arguments, std::span<const std::string_view> names,
                     std::size_t num_required) {
  Given out(names.size());
  if (arguments.positional.size() > names.size()) {
    context.raise("{} takes at most {} arguments, {} given", callee, names.size(), arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) out[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto place = std::ranges::find(names, name);
    if (place == names.end()) context.raise("{} has no argument '{}'", callee, name);
    auto& slot = out[static_cast<std::size_t>(place - names.begin())];
    if (slot) context.raise("{} has two values for its argument '{}'", callee, name);
    slot = value;
  }
  for (std::size_t i = 0; i < num_required; ++i) {
    if (!out[i]) context.raise("{} needs its argument '{}'", callee, names[i]);
  }
  return out;
}

std::string_view type_name(const Value& value) {
  constexpr std::string_view kNames[] = {"undefined", "None",  "bool",      "int",       "float", "str",    "list",     "tuple", "dict",
                                         "view",      "range", "generator", "namespace", "macro", "method", "function", "loop"};
  return value.is(Type::kView) ? value.text() : kNames[static_cast<std::size_t>(value.type)];
}

bool truth(const Value& value) {
  if (value.is_number()) return value.as_number() != 0;
  if (value.is_string()) return !value.text().empty();
  return !value.is(Type::kNone) && length(value).value_or(1) > 0;
}

namespace {

/// Exact for integers beyond 2^53.
std::partial_ordering compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_integer() <=> b.as_integer();
  const auto exact = [](const Value& value) {
    return value.is_integral() ? static_cast<long double>(value.as_integer()) : static_cast<long double>(value.number);
  };
  return exact(a) <=> exact(b);
}

bool equal_dicts(Context& context, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); i += 2) {
    const auto place = find_key(context, b, a[i]);
    if (!place || !equal(context, a[i + 1], b[*place + 1])) return false;
  }
  return true;
}

}  // namespace

bool equal(Context& context, const Value& a, const Value& b) {
  context.work();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.type != b.type) return false;
  switch (a.type) {
    case Type::kUndefined:
    case Type::kNone: return true;
    case Type::kString: context.work_bytes(a.text().size()); return a.text() == b.text();
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
      return a.heap == b.heap ||
             std::ranges::equal(a.items(), b.items(), [&](const Value& x, const Value& y) { return equal(context, x, y); });
    case Type::kDict: return a.heap == b.heap || equal_dicts(context, a.items(), b.items());
    case Type::kNamespace: return a.space == b.space;
    case Type::kView:
      if (a.heap != b.heap) context.refuse("a comparison of two {}", type_name(a));
      return true;
    case Type::kMethod:
    case Type::kFunction:
      if (a.heap != b.heap) context.refuse("a comparison of two functions");
      return true;
    default: return a.heap == b.heap;
  }
}

bool less(Context& context, const Value& a, const Value& b) {
  context.work();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) < 0;
  for (const Value* side : {&a, &b}) context.require_defined(*side);
  if (a.is_string() && b.is_string()) {
    context.work_bytes(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();
  }
  if (a.type == b.type && (a.is(Type::kList) || a.is(Type::kTuple))) {
    const auto& x = a.items();
    const auto& y = b.items();
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(context, x[i], y[i])) return less(context, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  context.raise("'<' cannot compare {} with {}", type_name(a), type_name(b));
}

std::vector<Value> iterate(Context& context, const Value& value) {
  std::vector<Value> out;
  if (value.heap) context.work(static_cast<std::int64_t>(value.items().size() / 4));
  switch (value.type) {
    case Type::kUndefined: return out;
    case Type::kString:
      for (const std::string_view character : characters(value.text())) out.push_back(context.string(std::string(character)));
      return out;
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
    case Type::kView: return value.items();
    case Type::kDict:
      for (std::size_t i = 0; i < value.items().size(); i += 2) out.push_back(value.items()[i]);
      return out;
    case Type::kGenerator:
      out.assign(value.items().begin() + static_cast<std::ptrdiff_t>(value.heap->next), value.items().end());
      value.heap->next = value.items().size();
      return out;
    case Type::kLoop: context.refuse("iterating over 'loop'");
    default: context.raise("{} is not iterable", type_name(value));
  }
}

bool is_iterable(const Value& value) { return value.is_string() || value.is(Type::kGenerator) || length(value).has_value(); }

std::optional<std::int64_t> length(const Value& value) {
  switch (value.type) {
    case Type::kUndefined: return 0;
    case Type::kString: return count_code_points(value.text());
    case Type::kList:
    case Type::kTuple:
    case Type::kRange:
    case Type::kView: return static_cast<std::int64_t>(value.items().size());
    case Type::kDict: return static_cast<std::int64_t>(value.items().size() / 2);
    case Type::kLoop: return value.heap->loop->num_items();
    default: return std::nullopt;
  }
}

bool is_hashable(const Value& value) {
  if (value.is(Type::kList) || value.is(Type::kDict)) return false;
  if (value.is(Type::kView)) return value.text() == "dict_values";
  if (!value.is(Type::kTuple)) return true;
  return std::all_of(value.items().begin(), value.items().end(), is_hashable);
}

std::optional<std::size_t> find_key(Context& context, const std::vector<Value>& items, const Value& key) {
  if (!is_hashable(key)) context.raise("{} cannot be a key", type_name(key));
  context.work(1 + static_cast<std::int64_t>(items.size() / 16));
  for (std::size_t i = 0; i < items.size(); i += 2) {
    if (items[i].is_string() && key.is_string()) {
      if (items[i].text() == key.text()) return i;
    } else if (!items[i].is(Type::kUndefined) && equal(context, items[i], key)) {
      return i;
    }
  }
  return std::nullopt;
}

std::vector<Value> pairs(Context& context, const Value& dict) {
  const auto& items = dict.items();
  std::vector<Value> out;
  for (std::size_t i = 0; i < items.size(); i += 2) out.push_back(context.sequence(Type::kTuple, {items[i], items[i + 1]}));
  return out;
}

const Value* find_member(Context& context, const Value& dict, std::string_view key) {
  const auto& items = dict.items();
  context.work(1 + static_cast<std::int64_t>(items.size() / 16));
  for (std::size_t i = 0; i < items.size(); i += 2) {
    if (items[i].is_string() && items[i].text() == key) return &items[i + 1];
  }
  return nullptr;
}

void put(Context& context, std::vector<Value>& items, const Value& key, const Value& value) {
  if (const auto place = find_key(context, items, key)) {
    items[*place + 1] = value;
    return;
  }
  items.push_back(key);
  items.push_back(value);
}

std::int64_t require_integer(Context& context, const Value& value, std::string_view what) {
  if (!value.is_integral()) context.raise("{} must be an integer, not {}", what, type_name(value));
  return value.as_integer();
}

const std::string& require_text(Context& context, const Value& value, std::string_view what) {
  if (!value.is_string()) context.raise("{} must be a string, not {}", what, type_name(value));
  return value.text();
}

}  // namespace quiver::text::jinja
