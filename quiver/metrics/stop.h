// Where a generated answer ends.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quiver::metrics {

/// `text` up to the stop strings, as lm-evaluation-harness cuts it after generation. Each stop string in turn cuts the text before its
/// first occurrence. So the order matters where occurrences overlap: "abc" is "a" for {"bc", "ab"}, and "" for {"ab", "bc"}. An empty stop
/// string cuts nothing. The result points into `text`.
std::string_view cut_at_stops(std::string_view text, std::span<const std::string> stops);

/// What follows the last `marker` (say "</think>"), without white space at its beginning; all of `text`, likewise, if there is none. The
/// harness does so before it cuts at stop strings. `text` must be valid UTF-8. Throws kUsage if `marker` is empty.
std::string_view after_thinking(std::string_view text, std::string_view marker);

}  // namespace quiver::metrics
