#include "quiver/cli/method_flags.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "quiver/base/error.h"
#include "quiver/methods/table.h"

namespace quiver::cli {
namespace {

using methods::Option;
using methods::OptionType;

constexpr std::size_t kFewMethods = 4;  // that help names one by one

std::string type_name(const Option& option) {
  switch (option.type) {
    case OptionType::kCount: return "INT";
    case OptionType::kSeed: return "UINT";
    case OptionType::kNumber: return "FLOAT";
    default: return "TEXT";
  }
}

/// "lag, lag-base: adapters that Arrow lets through (default: 20)". Methods that differ in the default are said to have their own.
std::string help_of(const Option& option, std::span<const methods::Method> among) {
  std::string initial = methods::initial_text(option), readers;
  std::size_t count = 0;
  for (const auto& method : among) {
    const auto* same = methods::find_option(method.options, option.name);
    if (same == nullptr) continue;
    ++count;
    if (methods::initial_text(*same) != initial) initial = "the method's";
    readers += (readers.empty() ? "" : ", ") + method.name;
  }
  auto help = count <= kFewMethods ? readers + ": " + option.about.help : option.about.help;
  if (count > kFewMethods) help[0] = static_cast<char>(std::toupper(help[0]));
  return initial.empty() || option.type == OptionType::kSwitch ? help : help + " (default: " + initial + ")";
}

std::string joined(std::span<const std::string> texts) {
  std::string text;
  for (const auto& each : texts) text += (text.empty() ? "" : ",") + each;
  return text;
}

}  // namespace

std::string flag_of(const std::string& option) {
  const auto equals = std::min(option.find('='), option.size());
  auto flag = "--" + option.substr(0, equals);
  std::ranges::replace(flag, '_', '-');
  return equals == option.size() ? flag : flag + " " + option.substr(equals + 1);
}

bool MethodFlags::has(const std::string& option) const {
  const auto found = texts.find(option);
  return found != texts.end() && !found->second.empty();
}

methods::OptionValues MethodFlags::values_for(const methods::Method& method, methods::OptionValues own) const {
  const auto written = own;
  for (const auto& option : method.options) {
    if (has(option.name) && !own.contains(option.name)) own[option.name] = methods::parse_option(option, joined(texts.at(option.name)));
  }
  for (const auto& option : method.options) {
    if (!written.contains(option.name) && !methods::has_what_it_needs(option, method.options, own)) own.erase(option.name);
  }
  methods::check_options(method.name, method.options, own);
  return own;
}

void add_method_flags(CLI::App& command, std::span<const methods::Method> methods, MethodFlags& flags) {
  for (const auto& method : methods) {
    for (const auto& option : method.options) {
      const auto flag = flag_of(option.name);
      if (!option.about.has_flag || command.get_option_no_throw(flag) != nullptr) continue;
      auto& texts = flags.texts[option.name];
      const auto help = help_of(option, methods);
      if (option.type == OptionType::kSwitch) {
        command.add_flag_callback(
            flag, [&texts] { texts = {"true"}; }, help);
        continue;
      }
      auto* added = command.add_option(flag, texts, help)->type_name(type_name(option));
      const bool is_list = option.type == OptionType::kNames || option.type == OptionType::kWeights;
      is_list ? added->delimiter(',') : added->expected(1);
    }
  }
}

void add_former_temperature(CLI::App& command, MethodFlags& flags) {
  command.add_option("--temperature", flags.texts["routing_temperature"], "The former name of --routing-temperature")
      ->expected(1)
      ->type_name("FLOAT")
      ->excludes("--routing-temperature")
      ->each([](const std::string&) {
        std::fputs("quiver: --temperature is called --routing-temperature now; the next version does not know the former name\n", stderr);
      });
}

void refuse_unread_flags(const MethodFlags& flags, std::span<const MethodValues> read, std::span<const methods::Method> among,
                         std::string_view chosen) {
  for (const auto& [name, texts] : flags.texts) {
    if (texts.empty() || std::ranges::any_of(read, [&](const MethodValues& each) { return each.values.contains(name); })) continue;
    for (const auto& [method, values] : read) {
      const auto* option = methods::find_option(method->options, name);
      if (option != nullptr) fail(ErrorKind::kUsage, "{} requires {}", flag_of(name), flag_of(option->about.needs));
    }
    fail(ErrorKind::kUsage, "{} is read by {}, not by {}; leave it out, or choose another --method", flag_of(name),
         methods::methods_with(among, name), chosen);
  }
}

}  // namespace quiver::cli
