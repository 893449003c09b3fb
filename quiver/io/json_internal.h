// What json.cpp shares with json_lines.cpp.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "quiver/io/json.h"

namespace quiver::io {

/// parse_json for a text that starts on line `first_line` of its origin.
nlohmann::json parse_json_at(std::string_view text, std::string_view origin, std::int64_t first_line, const JsonLimits& limits = {});

/// A value for an error message: its JSON in ASCII, cut after some 60 characters.
std::string excerpt(const nlohmann::json& value);

}  // namespace quiver::io
