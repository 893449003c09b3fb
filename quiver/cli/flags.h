// Options in messages: a library names the field, the program the flag.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace quiver::cli {

/// The text of a library as a user of `command` reads it: `top_k` becomes --top-k, `device=cpu` --device cpu, `force=true` --force and
/// `chat=false` --no-chat. What names no option of the command stays.
std::string with_flags(const CLI::App& command, std::string_view text);

/// The verb, or the verb of a verb, that the command line chose; `app` itself if it chose none.
const CLI::App& chosen_command(const CLI::App& app);

}  // namespace quiver::cli
