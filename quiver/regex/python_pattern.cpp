#include "quiver/regex/python_pattern.h"

#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::regex {
PythonPattern::PythonPattern(const TranslatedPattern& translated, const std::string& origin)
    : code_(translated.source, origin, kMaxPythonMatchSteps), origin_(origin), ignores_case_(translated.ignores_case) {}

void PythonPattern::check_text(std::string_view text) const {
  if (ignores_case_ && !is_ascii(text)) {
    fail(ErrorKind::kUnsupported, "{}: a pattern with (?i) cannot be matched with '{}', which is not ASCII", origin_, excerpt(text));
  }
}

bool PythonPattern::full_match(std::string_view text) const {
  check_text(text);
  return code_.matches_all(text);
}

bool PythonPattern::match(std::string_view text) const {
  check_text(text);
  return code_.match_at_start(text).has_value();
}

std::optional<std::string_view> PythonPattern::last_group(std::string_view text) const {
  check_text(text);
  const auto groups = code_.match_at_start(text);
  if (!groups || !groups->back()) return std::nullopt;
  const auto [begin, end] = *groups->back();
  return text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

std::vector<Groups> PythonPattern::find_all(std::string_view text) const {
  check_text(text);
  if (!is_valid_utf8(text)) {
    fail(ErrorKind::kBadFormat, "{}: the pattern is to be matched in a text of {} bytes that are not UTF-8", origin_, text.size());
  }
  std::vector<Groups> matches;
  std::int64_t start = 0;
  bool was_empty = false;  // Python then wants a longer match at the same place, or one further right
  while (auto groups = code_.search(text, start, was_empty)) {
    const Match whole = *groups->front();
    start = whole.end;
    was_empty = whole.end == whole.begin;
    matches.push_back(std::move(*groups));
  }
  return matches;
}

std::string PythonPattern::without_matches(std::string_view text) const {
  std::string rest;
  std::int64_t copied = 0;
  const auto copy_to = [&](std::int64_t end) {
    rest += text.substr(static_cast<std::size_t>(copied), static_cast<std::size_t>(end - copied));
  };
  for (const Groups& groups : find_all(text)) {
    copy_to(groups.front()->begin);
    copied = groups.front()->end;
  }
  copy_to(std::ssize(text));
  return rest;
}

}  // namespace quiver::regex
