#include "quiver/methods/composed_name.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/library/library.h"
#include "quiver/methods/table.h"

namespace quiver::methods {
namespace {

/// Where the value that begins at `begin` ends: before the first "," or ")" outside of brackets and quotes, or at the end.
std::size_t end_of_value(std::string_view text, std::size_t begin, std::string_view ends) {
  int depth = 0;
  bool is_quoted = false;
  for (auto i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (is_quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      is_quoted = !is_quoted;
    } else if (!is_quoted) {
      if (depth == 0 && ends.find(c) != std::string_view::npos) return i;
      if (c == '[' || c == '(') ++depth;
      if (c == ']' || c == ')') --depth;
    }
  }
  return text.size();
}

/// A value without its brackets or quotes.
std::string bare(std::string_view value, std::string_view whole) {
  if (value.size() >= 2 && value.front() == '[' && value.back() == ']') return std::string(value.substr(1, value.size() - 2));
  if (!value.starts_with('"')) return std::string(value);
  const auto text = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (!text.is_string()) fail(ErrorKind::kUsage, "method '{}': {} is not a quoted text", whole, value);
  return text.get<std::string>();
}

OptionValues parse_pairs(const Method& method, std::string_view list, std::string_view whole) {
  auto values = OptionValues::object();
  for (std::size_t begin = 0; begin < list.size();) {
    const auto end = end_of_value(list, begin, ",");
    const auto pair = list.substr(begin, end - begin);
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      fail(ErrorKind::kUsage, "method '{}': '{}' is not of the form OPTION=VALUE", whole, pair);
    }
    const std::string name(pair.substr(0, equals));
    const auto* option = find_option(method.options, name);
    if (option == nullptr) check_options(method.name, method.options, {{name, nullptr}});  // says which is near
    if (values.contains(name)) fail(ErrorKind::kUsage, "method '{}' gives '{}' twice", whole, name);
    values[name] = parse_option(*option, bare(pair.substr(equals + 1), whole));
    begin = end + 1;
  }
  check_options(method.name, method.options, values);
  return values;
}

}  // namespace

const Method& MethodUse::row() const { return reuse_method(name); }

std::string text_of(const MethodUse& use) {
  const auto& method = use.row();
  const auto* argument = method.argument();
  if (argument == nullptr || !use.options.contains(argument->name)) return use.name + given_text(method.options, use.options);
  return use.name + "=" + use.options.at(argument->name).get<std::string>();
}

ComposedName parse_name(std::string_view text) {
  ComposedName result;
  auto rest = text;
  for (const auto each : library::kAdapterKinds) {
    const std::string_view kind = library::kind_name(each);
    if (!rest.starts_with(kind) || rest.size() == kind.size()) continue;
    const char next = rest[kind.size()];
    if (next != '/' && next != '-') continue;
    result.kind = kind;
    rest.remove_prefix(kind.size() + 1);
    break;
  }
  const auto end = std::min(rest.find_first_of("=("), rest.size());
  const auto& method = reuse_method(rest.substr(0, end));
  result.use.name = method.name;
  rest.remove_prefix(end);
  if (rest.empty()) return result;
  if (rest.front() == '=') {
    if (method.argument() == nullptr) {
      fail(ErrorKind::kUsage, "method '{}' takes no name; its options are written {}(OPTION=VALUE,...)", method.name, method.name);
    }
    if (rest.size() == 1) fail(ErrorKind::kUsage, "method '{}' names nothing after '='", text);
    result.use.options[method.argument()->name] = std::string(rest.substr(1));
    return result;
  }
  if (end_of_value(rest, 1, ")") != rest.size() - 1)
    fail(ErrorKind::kUsage, "method '{}' does not end with the bracket that it opens", text);
  result.use.options = parse_pairs(method, rest.substr(1, rest.size() - 2), text);
  return result;
}

std::vector<std::string> split_names(std::string_view text) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = end_of_value(text, begin, ",");
    if (end > begin) names.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

}  // namespace quiver::methods
