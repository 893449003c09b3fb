#include "quiver/cli/flags.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace quiver::cli {
namespace {

/// The fields whose flags have other names; scripts/check_messages.py reads this table.
constexpr std::pair<std::string_view, std::string_view> kFlagOfField[] = {
    {"full_fine_tuning", "--full"}, {"generates", "--no-generation"}, {"isolation", "--unsafe-run-code"},
    {"learning_rate", "--lr"},      {"max_valid", "--validate"},      {"names", "--adapters"},
    {"use_dora", "--dora"},
};

/// "top_k", or "chat" with the prefix "--no-".
std::string flag_of(std::string_view field, std::string_view prefix) {
  const auto* other = std::ranges::find(kFlagOfField, field, &std::pair<std::string_view, std::string_view>::first);
  if (other != std::end(kFlagOfField)) return std::string(other->second);
  std::string flag = std::string(prefix) + std::string(field);
  std::ranges::replace(flag, '_', '-');
  return flag;
}

/// "field" or "field=value" as it stands on the command line, or nothing where the command has no such option.
std::optional<std::string> argument_of(const CLI::App& command, std::string_view marked) {
  const auto field = marked.substr(0, marked.find('='));
  const auto value = marked.substr(std::min(field.size() + 1, marked.size()));
  auto flag = flag_of(field, value == "false" ? "--no-" : "--");
  if (command.get_option_no_throw(flag) == nullptr) return std::nullopt;
  if (value.empty() || value == "true" || value == "false") return flag;
  return flag + " " + std::string(value);
}

}  // namespace

std::string with_flags(const CLI::App& command, std::string_view text) {
  std::string result;
  while (true) {
    const auto begin = text.find('`');
    const auto end = begin == std::string_view::npos ? begin : text.find('`', begin + 1);
    if (end == std::string_view::npos) return result.append(text);
    const auto argument = argument_of(command, text.substr(begin + 1, end - begin - 1));
    result.append(text.substr(0, begin)).append(argument ? *argument : text.substr(begin, end - begin));
    text.remove_prefix(argument ? end + 1 : end);  // a mark that closes nothing may open the next
  }
}

const CLI::App& chosen_command(const CLI::App& app) {
  const auto* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().back();
  return *command;
}

}  // namespace quiver::cli
