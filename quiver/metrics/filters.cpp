#include "quiver/metrics/filters.h"

#include "quiver/base/error.h"
#include "quiver/metrics/python_text.h"

namespace quiver::metrics {

const std::string& take_first(std::span<const std::string> responses) {
  if (responses.empty()) fail(ErrorKind::kUsage, "take_first needs at least one response");
  return responses.front();
}

std::string remove_whitespace(std::string_view response) {
  check_utf8(response, "response");
  return std::string(strip(response));
}

RegexFilter::RegexFilter(const RegexFilterOptions& options) : options_(options), pattern_(options.pattern, "filter regex: pattern") {}

std::string RegexFilter::apply(std::string_view response) const {
  const auto matches = pattern_.find_all(response);
  if (matches.empty()) return options_.fallback;
  const auto count = std::ssize(matches);
  const auto index = options_.group_select < 0 ? options_.group_select + count : options_.group_select;
  if (index < 0 || index >= count) {
    fail(ErrorKind::kUsage,
         "filter regex: group_select is {}, but the response has {} matches of '{}'; 0 takes the first match, -1 the last",
         options_.group_select, count, options_.pattern);
  }
  const auto& groups = matches[static_cast<std::size_t>(index)];
  const auto text_of = [&](std::size_t group) {
    if (!groups[group]) return std::string_view();
    const auto [begin, end] = *groups[group];
    return response.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  };
  if (groups.size() <= 2) return std::string(strip(text_of(groups.size() - 1)));
  for (std::size_t group = 1; group < groups.size(); ++group) {
    if (const auto text = text_of(group); !text.empty()) return std::string(strip(text));
  }
  return std::string(strip(options_.fallback));
}

}  // namespace quiver::metrics
