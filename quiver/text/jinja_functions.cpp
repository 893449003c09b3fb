// The global functions of a chat template.
#include <array>
#include <ctime>

#include "quiver/text/jinja_parts.h"

namespace quiver::text::jinja {
namespace {

Value make_range(Context& context, const Arguments& arguments) {
  const auto given = bind_arguments(context, "range()", arguments, {"start", "stop", "step"}, 1);
  if (!arguments.named.empty()) context.raise("range() takes no named arguments");
  const auto at = [&](std::size_t i, std::int64_t fallback) {
    return given[i] ? require_integer(context, *given[i], "an argument of range()") : fallback;
  };
  const std::int64_t start = given[1] ? at(0, 0) : 0;
  const std::int64_t stop = given[1] ? at(1, 0) : at(0, 0);
  const std::int64_t step = at(2, 1);
  if (step == 0) context.raise("the step of range() cannot be zero");
  const auto distance = step > 0 ? static_cast<long double>(stop) - static_cast<long double>(start)
                                 : static_cast<long double>(start) - static_cast<long double>(stop);
  const long double size = step > 0 ? static_cast<long double>(step) : -static_cast<long double>(step);
  if (distance / size > static_cast<long double>(kMaxRange)) context.raise("range() of more than {} items", kMaxRange);
  std::vector<Value> items;
  context.work(distance > 0 ? static_cast<std::int64_t>(distance / size) : 0);
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    items.push_back(context.integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  const std::string text = step == 1 ? format("range({}, {})", start, stop) : format("range({}, {}, {})", start, stop, step);
  return context.sequence(Type::kRange, std::move(items), text);
}

/// The members that dict(...) makes of its arguments: a dict or pairs, then named ones.
std::vector<Value> dict_items(Context& context, std::string_view callee, const Arguments& arguments) {
  if (arguments.positional.size() > 1) context.raise("{} takes at most one positional argument", callee);
  std::vector<Value> items;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Type::kDict)) {
      items = source.items();
    } else {
      for (const Value& pair : iterate(context, source)) {
        const auto parts = iterate(context, pair);
        if (parts.size() != 2) context.raise("{} needs pairs, not {} values", callee, parts.size());
        put(context, items, parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) put(context, items, context.string(name), value);
  return items;
}

Value make_namespace(Context& context, const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> members;
  const auto items = dict_items(context, "namespace()", arguments);
  for (std::size_t i = 0; i < items.size(); i += 2) {
    if (!items[i].is_string()) context.refuse("a namespace with a key that is no string");
    if (items[i].text().starts_with('_')) context.raise("a namespace cannot have a member '{}'", items[i].text());
    members.emplace_back(items[i].text(), items[i + 1]);
  }
  return context.make_namespace(std::move(members));
}

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

/// strftime, conversion by conversion; those that depend on a time zone are empty, as in Python without one.
Value format_time(Context& context, const Arguments& arguments) {
  const Value pattern_value = *bind_arguments(context, "strftime_now()", arguments, {"format"}, 1)[0];
  const std::string& pattern = require_text(context, pattern_value, "the format of strftime_now()");
  const std::tm now = context.options().now ? *context.options().now : local_time();
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      out += pattern[i];
      continue;
    }
    std::string conversion = "%";
    if (i + 1 < pattern.size() && pattern[i + 1] == '-') conversion += pattern[++i];
    const char letter = i + 1 < pattern.size() ? pattern[++i] : '\0';
    if (letter == 'z' || letter == 'Z') continue;
    if (letter == '\0' || std::string_view("aAbBcCdDeFgGhHIjmMnprRStTuUVwWxXyY%").find(letter) == std::string_view::npos) {
      context.refuse("the conversion '{}{}' of strftime_now()", conversion, std::string_view(&letter, letter == '\0' ? 0 : 1));
    }
    conversion += letter;
    std::array<char, 256> buffer{};
    out.append(buffer.data(), std::strftime(buffer.data(), buffer.size(), conversion.c_str(), &now));
    context.check_size(out);
    context.work();
  }
  return context.string(std::move(out));
}

}  // namespace

std::optional<Value> global_function(Context& context, std::string_view name) {
  for (const std::string_view known : {"raise_exception", "strftime_now", "namespace", "dict", "range"}) {
    if (name == known) return context.function(name);
  }
  if (name == "lipsum" || name == "cycler" || name == "joiner") context.refuse("the function '{}', which Quiver does not implement", name);
  return std::nullopt;
}

Value call_function(Context& context, std::string_view name, const Arguments& arguments) {
  context.work();
  if (name == "range") return make_range(context, arguments);
  if (name == "namespace") return make_namespace(context, arguments);
  if (name == "dict") return context.sequence(Type::kDict, dict_items(context, "dict()", arguments));
  if (name == "strftime_now") return format_time(context, arguments);
  const Value message = *bind_arguments(context, "raise_exception()", arguments, {"message"}, 1)[0];
  fail(ErrorKind::kUsage, "{}: {}", context.origin(), str(context, message));
}

}  // namespace quiver::text::jinja
