// The body of a request as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "quiver/io/json.h"

namespace quiver::api {

/// A body may hold this much, whatever its size in bytes.
inline constexpr io::JsonLimits kBodyLimits = {.max_depth = 64, .max_values = 1'000'000, .max_number_bytes = 64};

/// The object that a body holds. Throws kInvalidJson with line and column for what is not JSON, for invalid UTF-8, for what exceeds
/// kBodyLimits, for a key that occurs twice in one object, and for what is no object.
nlohmann::json parse_body(std::string_view body);

/// Checks the header Content-Type: application/json or application/*+json, in UTF-8. Throws kNotJson with a hint otherwise, also if there
/// is none. Web pages of other origins can send such a body only after asking (CORS).
void check_content_type(std::string_view content_type);

}  // namespace quiver::api
