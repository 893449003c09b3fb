// Python's literals, which templates of task files render to.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace quiver::tasks {

/// The value of a literal as Python's ast.literal_eval reads it: texts, integers of 64 bits, numbers, True, False, None, lists and tuples
/// (both as arrays). Nothing for any other text, which other literals of Python are too: sets, dicts, bytes, prefixed and adjacent texts.
std::optional<nlohmann::json> python_literal(std::string_view text);

}  // namespace quiver::tasks
