// Options that nothing would read are refused, before anything is loaded.
#pragma once

#include <CLI/CLI.hpp>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::cli {

/// Whether the option stands on the command line.
bool is_given(const CLI::App& command, const char* option);

/// Throws kUsage if one of the options is given though `is_read` is false. `readers` says what would read it, `chosen` what is chosen
/// instead.
void refuse_unread(const CLI::App& command, bool is_read, std::initializer_list<const char*> options, std::string_view readers,
                   std::string_view chosen);

/// Throws kUsage for a name that a list holds twice.
void refuse_names_twice(const char* option, const std::vector<std::string>& names);

/// Throws kUsage where --adapters and --kind are both given: the first names the adapters.
void refuse_kind_of_named(const CLI::App& command);

}  // namespace quiver::cli
