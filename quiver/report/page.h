// The fixed parts of the page: its style sheet and its script.
#pragma once

#include <string>
#include <string_view>

namespace quiver::report {

/// CSS, with the palette classes q0 ... q15 in a light and a dark version.
std::string page_style();
/// A policy under which a page can fetch nothing and run nothing but this script: a second lock beside escaping.
std::string content_policy(std::string_view script);
/// Sorting of tables, the choice of a task in the layer view, and unfolding for print.
std::string_view page_script();

}  // namespace quiver::report
