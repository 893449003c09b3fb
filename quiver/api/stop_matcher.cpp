#include "quiver/api/stop_matcher.h"

#include <utility>

namespace quiver::api {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, std::string());
  for (const auto& stop : stops_) starts_[static_cast<unsigned char>(stop.front())] = true;
}

StopMatcher::Match StopMatcher::match_at(std::size_t offset) const {
  const auto rest = std::string_view(held_).substr(offset);
  auto best = Match::kNone;
  for (const auto& stop : stops_) {
    if (rest.starts_with(stop)) return Match::kWhole;
    if (std::string_view(stop).starts_with(rest)) best = Match::kPartial;
  }
  return best;
}

void StopMatcher::push(std::string_view text, std::string& out) {
  if (is_stopped_) return;
  if (stops_.empty()) {
    out += text;
    return;
  }
  held_ += text;
  scan(/*is_end=*/false, out);
}

void StopMatcher::finish(std::string& out) {
  if (!is_stopped_) scan(/*is_end=*/true, out);
}

void StopMatcher::scan(bool is_end, std::string& out) {
  std::size_t offset = 0;
  for (; offset < held_.size(); ++offset) {
    if (!starts_[static_cast<unsigned char>(held_[offset])]) continue;
    const auto match = match_at(offset);
    is_stopped_ = match == Match::kWhole;
    if (is_stopped_ || (match == Match::kPartial && !is_end)) break;
  }
  out.append(held_, 0, offset);
  held_.erase(0, is_stopped_ ? held_.size() : offset);
}

}  // namespace quiver::api
