// What python_syntax.cpp reads a pattern with: a cursor that names the place of a fault, the characters of escapes, and classes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quiver/base/utf8.h"
#include "quiver/regex/python_pattern.h"

namespace quiver::regex {

inline constexpr std::string_view kWord = "\\p{L}\\p{N}_";  ///< Python's \w over str, as members of a class
inline constexpr std::string_view kAnything = "(?s:.)";

inline bool is_upper(char32_t c) { return c >= 'A' && c <= 'Z'; }
inline bool is_letter(char32_t c) { return is_upper(c) || (c >= 'a' && c <= 'z'); }
inline bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
inline bool is_octal(char32_t c) { return c >= '0' && c <= '7'; }

/// A cursor over a pattern and what surrounds it. `pattern` and `origin` must outlive it.
class PythonReader {
 public:
  PythonReader(std::string_view pattern, const std::string& origin, const Surroundings& around);

  bool at_end() const { return position_ >= static_cast<std::int64_t>(text_.size()); }
  /// The next character; 0 at the end.
  char32_t peek() const;
  /// The next character, which is read. Throws kBadFormat at the end.
  char32_t take();
  /// Reads `text` if it comes next.
  bool take_if(std::string_view text);
  /// In bytes.
  std::int64_t position() const { return position_; }
  void back_to(std::int64_t position) { position_ = position; }
  /// What was read from that position on.
  std::string_view text_since(std::int64_t position) const;
  bool is_ascii() const { return quiver::is_ascii(text_); }

  /// Throws kBadFormat: Python refuses the pattern. `what` stands before the cursor.
  [[noreturn]] void fail_syntax(std::string_view what) const;
  /// Throws kUnsupported: Quiver does not translate `what`.
  [[noreturn]] void refuse(std::string_view what) const;

 private:
  std::int64_t place() const;

  std::string_view pattern_;
  const std::string& origin_;
  std::int64_t num_before_;
  std::string text_;  ///< the pattern with what surrounds it
  std::int64_t position_ = 0;
};

/// The members of a class that an escape such as \d or \D stands for; empty for other characters.
std::string_view set_of(char32_t c);
/// After a backslash: one character, inside or outside a class.
char32_t character_escape(PythonReader& in);
/// After '[': the class in PCRE2's syntax. Complements such as \W cannot stand beside other members there, and become alternatives.
std::string character_class(PythonReader& in);

}  // namespace quiver::regex
