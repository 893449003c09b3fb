// JSON written straight into a string: answers hold thousands of numbers, for which a tree of values is slow.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace quiver::api {

/// Appends `text` in quotes. Bytes that are not UTF-8 become U+FFFD; What any client takes for a line break is escaped.
void append_json(std::string& out, std::string_view text);
inline void append_json(std::string& out, const char* text) { append_json(out, std::string_view(text)); }
void append_json(std::string& out, std::int64_t value);
/// Appends a list of integers.
void append_json(std::string& out, std::span<const std::int32_t> values);
/// Appends a log-probability: the shortest decimal that reads back as the same double, always with a point or an exponent. Equal doubles
/// give equal texts. An infinity, or what is no number, becomes -9999.0, which OpenAI writes for it.
void append_log_prob(std::string& out, double value);

}  // namespace quiver::api
