// UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quiver {

struct CodePoint {
  char32_t value = 0;
  std::int64_t num_bytes = 0;
};

/// The character that starts at text[offset], which must be valid UTF-8.
CodePoint code_point_at(std::string_view text, std::int64_t offset);
/// The character that ends before text[offset], offset >= 1; `text` must be valid UTF-8.
CodePoint code_point_before(std::string_view text, std::int64_t offset);
void append_utf8(std::string& out, char32_t code_point);

/// Calls visit(bytes, value) for each character of `text`, which must be valid UTF-8; `bytes` point into it.
template <typename Visit>
void for_each_character(std::string_view text, const Visit& visit) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, static_cast<std::int64_t>(i));
    const auto num_bytes = static_cast<std::size_t>(point.num_bytes);
    visit(text.substr(i, num_bytes), point.value);
    i += num_bytes;
  }
}

bool is_ascii(std::string_view text);
/// The number of characters of `text`, which must be valid UTF-8.
std::int64_t count_code_points(std::string_view text);

bool is_valid_utf8(std::string_view text);
/// `bytes` with U+FFFD in place of every maximal part that is not UTF-8 (Unicode 14, section 3.9, table 3-8; the
/// same as Python's errors="replace").
std::string replace_invalid_utf8(std::string_view bytes);
/// How many bytes at the end of `bytes` start a character that later bytes may complete; 0 to 3.
std::int64_t incomplete_tail(std::string_view bytes);

}  // namespace quiver
