// Regular expressions written for Python's module `re`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/regex/pattern.h"

namespace quiver::regex {

/// A match of a Python pattern that backtracks more often fails with an error. Texts are short: names of modules, answers of models.
inline constexpr std::uint32_t kMaxPythonMatchSteps = 1'000'000;

/// Text around a pattern, as Python code puts it there (f"(.*\.)?({key})$"). References count the groups of all of it.
struct Surroundings {
  std::string_view before = "";
  std::string_view after = "";
};

/// A Python pattern in PCRE2's syntax.
struct TranslatedPattern {
  std::string source;
  bool ignores_case = false;
};
/// Throws kBadFormat for what Python refuses, and kUnsupported, naming construct and place, for what Quiver does not translate or
/// what exceeds the limits of pattern.h. `origin` names the pattern's place in messages.
TranslatedPattern translate_python(std::string_view pattern, const std::string& origin, const Surroundings& around = {});

/// A pattern of Python 3.11's `re` over str, without flags. Immutable, thread-safe.
///
/// Covers literals, classes, all escapes but \N, greedy, lazy and possessive repeats, groups, named groups, references,
/// look-around, atomic groups, comments, and the flags i, m, s and u. Outside ASCII, `(?i)` is refused: there Python and
/// PCRE2 know different cases.
class PythonPattern {
 public:
  /// Throws as translate_python.
  PythonPattern(std::string_view pattern, const std::string& origin, const Surroundings& around = {})
      : PythonPattern(translate_python(pattern, origin, around), origin) {}

  /// Whether re.fullmatch(pattern, text) finds a match.
  bool full_match(std::string_view text) const;
  /// Whether re.match(pattern, text) finds a match.
  bool match(std::string_view text) const;
  /// What the last group of the pattern holds after re.match(pattern, text); nothing if either took no part.
  std::optional<std::string_view> last_group(std::string_view text) const;
  /// The matches of re.finditer(pattern, text), from left to right. Throws kBadFormat if `text` is not UTF-8.
  std::vector<Groups> find_all(std::string_view text) const;
  /// re.sub(pattern, "", text). Throws as find_all.
  std::string without_matches(std::string_view text) const;

 private:
  PythonPattern(const TranslatedPattern& translated, const std::string& origin);
  void check_text(std::string_view text) const;

  Pattern code_;
  std::string origin_;
  bool ignores_case_;
};

}  // namespace quiver::regex
