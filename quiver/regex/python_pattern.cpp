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

}  // namespace quiver::regex
