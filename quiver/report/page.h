// What every page has: its style sheet, and the policy of its script (assets.h).
#pragma once

#include <string>
#include <string_view>

namespace quiver::report {

/// CSS, with the palette classes q0 ... q15 in a light and a dark version.
std::string page_style();
/// A policy under which a page can fetch nothing and run nothing but this script: a second lock beside escaping.
std::string content_policy(std::string_view script);

}  // namespace quiver::report
