// The character classes of `tokenizers`, and GPT-2's printable spelling of bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "quiver/base/utf8.h"

namespace quiver::text {

/// Unicode's White_Space.
bool is_white_space(char32_t c);
/// Python's white space: of str.strip, str.split and `\s` alike. It is White_Space and U+001C to U+001F.
bool is_python_space(char32_t c);
/// Rust's char::is_numeric: categories Nd, Nl and No.
bool is_numeric(char32_t c);
/// `\w` of Rust's regular expressions: letters, marks, decimal and letter numbers, connectors, join controls.
bool is_word(char32_t c);
/// Unicode's categories Lu, Ll, Lt, Lm and Lo.
bool is_letter(char32_t c);
/// Python's str.isprintable of one character.
bool is_printable(char32_t c);
/// `text`, which must be valid UTF-8, in lower case as Python's str.lower gives it. A capital sigma that ends a word becomes a final
/// sigma (Unicode's Final_Sigma). Characters that the Unicode of some Python does not know (14 for Python 3.11) are lowered all the same.
std::string lowercase(std::string_view text);
/// Rust's char::to_lowercase.
void append_lowercase(std::string& out, char32_t c);
/// True if the normal forms of `tokenizers`, which are those of Unicode 9, leave `c` alone although later versions of
/// Unicode may give it a decomposition, a composition or a combining class.
bool is_unknown_to_normal_forms(char32_t c);

struct RecentRange {
  std::string_view property;  ///< "Lu", "Han", ...
  char32_t first = 0;
  char32_t last = 0;
};
/// Characters assigned after Unicode 14, which PCRE2 may not know.
std::span<const RecentRange> recent_ranges();

/// The printable character that stands for a byte in the vocabulary of a byte-level tokenizer, in UTF-8: 'a' for 'a',
/// "Ġ" for a space.
std::string_view byte_spelling(std::uint8_t byte);
/// The bytes that a vocabulary spelling stands for, or nothing if a character of it stands for no byte.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

}  // namespace quiver::text
