// Exact match of a prediction with references: lm-evaluation-harness' and Natural Instructions'.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/regex/python_pattern.h"

namespace quiver::metrics {

struct ExactMatchOptions {
  bool ignore_case = false;         ///< compare in lower case, as Python's str.lower
  bool ignore_punctuation = false;  ///< without string.punctuation: ASCII alone
  bool ignore_numbers = false;      ///< without string.digits: ASCII alone
  /// Python patterns. Their matches are removed first, a pattern after the other. An empty list is no pattern.
  std::vector<std::string> regexes_to_ignore;
};

/// The metric `exact_match` of lm-evaluation-harness 0.4.13 over one question.
///
/// White space counts: "a " is not "a". Two peculiarities of NumPy's fixed-width strings, which the harness compares, are kept:
///
/// - U+0000 at the end of a text does not count;
/// - lower case has no more characters than the text had, the longest reference's number for references. Only U+0130, the I with a dot,
///   grows: it becomes "i" and a combining dot, and the last characters of its text are lost.
///
/// Immutable, thread-safe.
class ExactMatch {
 public:
  /// Throws as regex::translate_python for a pattern of `regexes_to_ignore`.
  explicit ExactMatch(const ExactMatchOptions& options = {});

  /// Whether `prediction` equals one of `references`. Throws kUsage if there is no reference, kBadFormat for a text that is not UTF-8,
  /// and as regex::PythonPattern::find_all.
  bool matches_any(std::string_view prediction, std::span<const std::string> references) const;

 private:
  std::string without_patterns(std::string_view text, std::string_view name) const;
  std::string normalized(const std::string& text, std::size_t max_characters) const;

  bool ignores_case_;
  bool ignores_punctuation_;
  bool ignores_numbers_;
  std::vector<regex::PythonPattern> patterns_;
};

/// The form in which Natural Instructions (Wang et al. 2022), and mttl after it, compare answers: lower case, no ASCII punctuation, one
/// space for every run of white space, none at the ends. Articles stay, other than in SQuAD. Throws kBadFormat unless `text` is UTF-8.
std::string normalized_answer(std::string_view text);
/// Whether `prediction` and one of `references` have the same normalized_answer. Throws kUsage if there is no reference, and as
/// normalized_answer.
bool has_normalized_answer(std::string_view prediction, std::span<const std::string> references);

}  // namespace quiver::metrics
