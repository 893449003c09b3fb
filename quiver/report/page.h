// What every page has: its style sheet, its script (assets.h), and the policy of it.
#pragma once

#include <string>
#include <string_view>

namespace quiver::report {

/// The page of this body, which may end with data for the script. Its CSS has the palette classes q0 ... q15 in a light and a dark version,
/// and `style` behind them. A policy lets it fetch nothing and run nothing but this script: a second lock beside escaping of the text.
std::string html_page(const std::string& title, std::string_view style, const std::string& body, const std::string& data,
                      std::string_view script);

}  // namespace quiver::report
