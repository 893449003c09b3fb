// From a model's responses to the answer that is compared: filters of lm-evaluation-harness' task files.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "quiver/regex/python_pattern.h"

namespace quiver::metrics {

/// The filter `take_first`. Throws kUsage if there is no response.
const std::string& take_first(std::span<const std::string> responses);

/// The filter `remove_whitespace`: the response without white space at its ends, as str.strip. Throws kBadFormat unless it is UTF-8.
std::string remove_whitespace(std::string_view response);

struct RegexFilterOptions {
  std::string pattern = R"(#### (\-?[0-9\.\,]+))";  ///< a Python pattern; lm-evaluation-harness' default is GSM8K's
  std::int64_t group_select = 0;                    ///< which match: 0 the first, -1 the last
  std::string fallback = "[invalid]";               ///< the answer of a response without match
};

/// The filter `regex`, of lm-evaluation-harness 0.4.13. Immutable, thread-safe.
class RegexFilter {
 public:
  /// Throws as regex::translate_python.
  explicit RegexFilter(const RegexFilterOptions& options = {});

  /// The selected match without white space at its ends. Of a pattern with one group that group counts; of one with several the first group
  /// of the match that is not empty, or the fallback. Without any match the fallback.
  /// Throws kUsage if there are matches, but not the selected one; and as regex::PythonPattern::find_all.
  std::string apply(std::string_view response) const;

 private:
  RegexFilterOptions options_;
  regex::PythonPattern pattern_;
};

}  // namespace quiver::metrics
