// Regular expressions written for Oniguruma (the engine of `tokenizers`), matched by PCRE2.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::text {

struct Match {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// The pattern in PCRE2's syntax, for the options UTF and UCP, that matches what `pattern` matches in Oniguruma:
/// `\s` and `\d` become the classes of Unicode 16, properties gain the characters that PCRE2 may not know. Covers the
/// syntax that tokenizers use: literals, classes, `. ^ $ |`, groups, look-around, `(?i:...)`, greedy, lazy and
/// possessive quantifiers. Throws kUnsupported, naming construct and place, for the rest (back-references, `\b`, `\w`,
/// set operations, ...): there the engines differ.
std::string translate_pattern(std::string_view pattern, const std::string& origin);
/// A pattern that matches exactly `text`.
std::string literal_pattern(std::string_view text);

/// A compiled pattern. Immutable, thread-safe.
class Regex {
 public:
  /// `pattern` in PCRE2's syntax, as the functions above give it. Throws kUnsupported if PCRE2 refuses it.
  Regex(const std::string& pattern, const std::string& origin);

  /// All matches from left to right, none overlapping, in valid UTF-8. An empty match right after another match does
  /// not count. Throws kUnsupported if the pattern backtracks beyond all bounds on this text.
  void find_all(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  std::string origin_;
};

}  // namespace quiver::text
