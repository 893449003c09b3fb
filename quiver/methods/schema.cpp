#include "quiver/methods/schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <ranges>

#include "quiver/base/error.h"
#include "quiver/base/near.h"

namespace quiver::methods {
namespace {

using nlohmann::json;

constexpr double kLargestCount = 1e9;  // of rows, steps, adapters: sums of them cannot overflow

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (const auto part : std::views::split(text, ',')) {
    if (!part.empty()) parts.emplace_back(part.begin(), part.end());
  }
  return parts;
}

[[noreturn]] void refuse(const Option& option, const std::string& expected, std::string_view text) {
  fail(ErrorKind::kUsage, "`{}`: must be {}, not {}", option.name, expected, text);
}

double parse_number(const Option& option, std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (copy.empty() || *end != '\0') refuse(option, "a number", "'" + copy + "'");
  return value;
}

void check_number(const Option& option, double value, const std::string& text) {
  const auto& range = option.about.range;
  if (!std::isfinite(value)) refuse(option, "a finite number", text);
  const bool is_low = range.excludes_least ? value <= range.least : value < range.least;
  if (is_low || value > range.most) refuse(option, range_text(option), text);
  if (option.type == OptionType::kCount && std::abs(value) > kLargestCount) refuse(option, format("at most {}", kLargestCount), text);
}

bool is_set(const json& value) {
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  if (value.is_array() || value.is_object()) return !value.empty();
  return !value.is_null() && value != false && value != 0;
}

/// "one, two, three".
std::string listed(std::span<const std::string> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) text += (i == 0 ? "" : ", ") + words[i];
  return text;
}

}  // namespace

std::string type_text(const Option& option) {
  switch (option.type) {
    case OptionType::kCount: return "a whole number";
    case OptionType::kSeed: return "a whole number";
    case OptionType::kNumber: return "a number";
    case OptionType::kSwitch: return "true or false";
    case OptionType::kText: return "a text";
    case OptionType::kWord: return "one of " + listed(option.words);
    case OptionType::kNames: return "names";
    case OptionType::kWeights: return "numbers, or NAME=NUMBER for each";
    case OptionType::kFile: return "a file";
    case OptionType::kTaskData: return "a folder of task files";
  }
  return "";
}

std::string range_text(const Option& option) {
  const auto& [least, most, excludes_least] = option.about.range;
  if (std::isfinite(least) && std::isfinite(most)) {
    return excludes_least ? format("above {} and at most {}", least, most) : format("{} to {}", least, most);
  }
  if (std::isfinite(least)) return format("{} {}", excludes_least ? "above" : "at least", least);
  if (std::isfinite(most)) return format("at most {}", most);
  return "";
}

std::string initial_text(const Option& option) {
  if (!option.about.unset.empty()) return option.about.unset;
  return option.initial.is_null() || !option.about.has_flag ? "" : value_text(option.initial);
}

json parse_option(const Option& option, std::string_view text) {
  json value;
  switch (option.type) {
    case OptionType::kCount: {
      std::int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error == std::errc::result_out_of_range) refuse(option, format("at most {}", kLargestCount), text);
      if (error != std::errc() || end != text.data() + text.size()) refuse(option, "a whole number", format("'{}'", text));
      value = number;
      break;
    }
    case OptionType::kSeed: {
      std::uint64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size()) refuse(option, "a whole number of 0 to 2^64 - 1", format("'{}'", text));
      value = number;
      break;
    }
    case OptionType::kNumber: value = parse_number(option, text); break;
    case OptionType::kSwitch:
      if (text != "true" && text != "false") refuse(option, "true or false", format("'{}'", text));
      value = text == "true";
      break;
    case OptionType::kNames:
      value = json::array();
      for (const auto part : split(text)) value.push_back(part);
      break;
    case OptionType::kWeights: {
      const bool by_name = text.find('=') != std::string_view::npos;
      value = by_name ? json::object() : json::array();
      for (const auto part : split(text)) {
        const auto equals = part.rfind('=');
        if (!by_name) {
          value.push_back(parse_number(option, part));
        } else if (equals == std::string_view::npos) {
          fail(ErrorKind::kUsage, "`{}` '{}': either all weights have a name, as in beta=1,alpha=0, or none has", option.name, text);
        } else if (!value.emplace(part.substr(0, equals), parse_number(option, part.substr(equals + 1))).second) {
          fail(ErrorKind::kUsage, "`{}` names '{}' twice", option.name, part.substr(0, equals));
        }
      }
      break;
    }
    default: value = text;
  }
  check_option(option, value);
  return value;
}

void check_option(const Option& option, const json& value) {
  const auto expect = [&](bool holds) {
    if (!holds) refuse(option, type_text(option), value.dump());
  };
  switch (option.type) {
    case OptionType::kCount:
      expect(value.is_number_integer());
      check_number(option, value.get<double>(), value.dump());
      break;
    case OptionType::kSeed: expect(value.is_number_unsigned() || (value.is_number_integer() && value >= 0)); break;
    case OptionType::kNumber:
      expect(value.is_number());
      check_number(option, value.get<double>(), format("{}", value.get<double>()));
      break;
    case OptionType::kSwitch: expect(value.is_boolean()); break;
    case OptionType::kWord: {
      expect(value.is_string());
      const auto& word = value.get_ref<const std::string&>();
      if (std::ranges::find(option.words, word) == option.words.end())
        fail(ErrorKind::kUsage, "`{}` '{}' is not one of {}", option.name, word, listed(option.words));
      break;
    }
    case OptionType::kNames:
      expect(value.is_array());
      for (const auto& name : value) expect(name.is_string());
      break;
    case OptionType::kWeights:
      expect(value.is_array() || value.is_object());
      for (const auto& weight : value) {
        expect(weight.is_number());
        check_number(option, weight.get<double>(), format("{}", weight.get<double>()));
      }
      break;
    default: expect(value.is_string());
  }
}

const Option* find_option(std::span<const Option> options, std::string_view name) {
  const auto found = std::ranges::find(options, name, &Option::name);
  return found == options.end() ? nullptr : &*found;
}

const json& value_of(const Option& option, const OptionValues& values) {
  const auto found = values.find(option.name);
  return found == values.end() ? option.initial : *found;
}

bool has_what_it_needs(const Option& option, std::span<const Option> options, const OptionValues& values) {
  const auto& needs = option.about.needs;
  if (needs.empty()) return true;
  const auto name = needs.substr(0, needs.find('='));
  const auto& other = value_of(*find_option(options, name), values);
  return name == needs ? is_set(other) : other == needs.substr(name.size() + 1);
}

void check_options(std::string_view who, std::span<const Option> options, const OptionValues& values) {
  std::vector<std::string> known;
  for (const auto& option : options) known.push_back(option.name);
  for (const auto& [name, value] : values.items()) {
    const auto* option = find_option(options, name);
    if (option == nullptr) {
      fail(ErrorKind::kUsage, "method '{}' has no option '{}'{}; 'quiver methods {}' lists what it has", who, name,
           did_you_mean(name, known), who);
    }
    check_option(*option, value);
    if (!has_what_it_needs(*option, options, values)) fail(ErrorKind::kUsage, "`{}` requires `{}`", name, option->about.needs);
  }
}

std::string value_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return format("{}", value.get<double>());
  std::string text;
  if (value.is_array()) {
    for (const auto& part : value) text += (text.empty() ? "" : ",") + value_text(part);
  } else if (value.is_object()) {
    for (const auto& [name, part] : value.items()) text += (text.empty() ? "" : ",") + name + "=" + value_text(part);
  } else {
    text = value.dump();
  }
  return text;
}

std::string given_text(std::span<const Option> options, const OptionValues& values) {
  std::string text;
  for (const auto& option : options) {
    const auto found = values.find(option.name);
    if (found == values.end()) continue;
    auto value = value_text(*found);
    if (value.find_first_of(",()\"[]=") != std::string::npos) value = found->is_string() ? found->dump() : "[" + value + "]";
    text += (text.empty() ? "(" : ",") + option.name + "=" + value;
  }
  return text.empty() ? text : text + ")";
}

std::string canonical_text(std::span<const Option> options, const OptionValues& values) {
  json all = json::object();
  for (const auto& option : options) {
    if (option.type != OptionType::kFile && option.type != OptionType::kTaskData) all[option.name] = value_of(option, values);
  }
  return all.dump();  // keys sorted, numbers to the last bit
}

json options_json(std::span<const Option> options) {
  auto list = json::array();
  for (const auto& option : options) {
    list.push_back({{"name", option.name}, {"type", type_text(option)}, {"default", initial_text(option)}, {"help", option.about.help}});
    if (const auto range = range_text(option); !range.empty()) list.back()["range"] = range;
    if (!option.about.needs.empty()) list.back()["needs"] = option.about.needs;
    if (!option.words.empty()) list.back()["words"] = option.words;
  }
  return list;
}

}  // namespace quiver::methods
