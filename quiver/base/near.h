// "Did you mean ...?"
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quiver {

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal string alignment),
/// ignoring ASCII case. O(|a| |b|) time.
std::int64_t edit_distance(std::string_view a, std::string_view b);

/// The candidate closest to `name`, the first of equals; empty if none is near enough to be what was meant (a third of
/// the letters may differ, but at least two).
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);

/// " (did you mean 'qnli'?)", or nothing if no candidate is near: to be put at the end of a message.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace quiver
