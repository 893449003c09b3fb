// Flags of methods' options, made from their schemas.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/methods/method.h"

namespace quiver::cli {

/// "--top-k" of the option top_k, "--retrieve-by fisher" of retrieve_by=fisher.
std::string flag_of(const std::string& option);

/// What the command line gives: the texts of an option, by its name; empty where it is not given.
struct MethodFlags {
  std::map<std::string, std::vector<std::string>> texts;

  /// Whether any is given.
  bool has(const std::string& option) const;
  /// `own` and the given options that the method has and `own` has not. An option that needs another is left out where that one is not set.
  methods::OptionValues values_for(const methods::Method& method, methods::OptionValues own) const;
};

/// Adds a flag for every option of the methods, but for those that the command has already. `flags` must outlive the command.
void add_method_flags(CLI::App& command, std::span<const methods::Method> methods, MethodFlags& flags);
/// Adds --temperature as the former name of --routing-temperature, with a notice where it is used: for verbs that do not sample.
void add_former_temperature(CLI::App& command, MethodFlags& flags);

/// A method and its values, as values_for gives them.
struct MethodValues {
  const methods::Method* method = nullptr;
  methods::OptionValues values;
};
/// Throws kUsage for a flag that is in none of the values: nothing would read it. `among` are all methods that could be chosen; `chosen`
/// says what is.
void refuse_unread_flags(const MethodFlags& flags, std::span<const MethodValues> read, std::span<const methods::Method> among,
                         std::string_view chosen);

}  // namespace quiver::cli
