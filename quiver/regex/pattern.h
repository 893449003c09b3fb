// Regular expressions matched by PCRE2, within bounds: patterns come from files of strangers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::regex {

/// Patterns of more bytes are refused.
inline constexpr std::int64_t kMaxPatternBytes = std::int64_t{64} << 10;
/// Groups nested deeper are refused, because translating and compiling a group are recursive.
inline constexpr std::int64_t kMaxGroupDepth = 100;
/// Repeat counts above this are refused.
inline constexpr std::int64_t kMaxRepeat = 1000;
/// A match that backtracks more often fails with an error.
inline constexpr std::uint32_t kMaxMatchSteps = 10'000'000;

struct Match {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// A match by group: [0] is the whole match, nullopt a group that took no part.
using Groups = std::vector<std::optional<Match>>;

/// A compiled pattern. Immutable, thread-safe; copies share the compiled code.
class Pattern {
 public:
  /// `source` is in PCRE2's syntax; `origin` names its file in messages. Throws kUnsupported if PCRE2 refuses the pattern.
  Pattern(const std::string& source, std::string origin, std::uint32_t max_steps = kMaxMatchSteps);

  /// All matches from left to right, none overlapping, in valid UTF-8. An empty match right after another match does
  /// not count. Throws kUnsupported if the pattern backtracks beyond its bound on this text.
  void find_all(std::string_view text, std::vector<Match>& out) const;
  /// Whether the pattern matches all of `text`. Throws as find_all, and kBadFormat if `text` is not UTF-8.
  bool matches_all(std::string_view text) const;
  /// The match that begins where `text` begins. Nothing if there is no such match. Throws as matches_all.
  std::optional<Groups> match_at_start(std::string_view text) const;
  /// The first match that begins at byte `start` or later, with its groups as in match_at_start. `text` must be valid UTF-8, and `start`
  /// the beginning of a character or the end. With `not_empty_at_start` an empty match at `start` does not count. Throws as find_all.
  std::optional<Groups> search(std::string_view text, std::int64_t start, bool not_empty_at_start) const;

 private:
  struct Code;
  int run(std::string_view text, std::int64_t start, std::uint32_t options) const;
  Groups groups_of_last_run() const;

  std::shared_ptr<const Code> code_;
  std::string origin_;
  std::uint32_t max_steps_;
};

/// A character that stands for itself, inside or outside a class, in PCRE2's syntax.
std::string literal(char32_t c);
/// A pattern that matches exactly `text`, which must be valid UTF-8.
std::string literal_pattern(std::string_view text);
/// The beginning of a pattern, for messages.
std::string excerpt(std::string_view pattern);

}  // namespace quiver::regex
