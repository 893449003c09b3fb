// Text for people: numbers, shortened names, and what untrusted text needs before it enters a page or a terminal.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::report {

/// A number with a fixed count of decimals and a true minus sign (U+2212); an en dash for NaN.
std::string number_text(double value, int decimals);
/// The same with a plus sign for positive numbers.
std::string signed_text(double value, int decimals);
/// "71 %"; an en dash for NaN.
std::string percent_text(double share, int decimals = 0);
/// "361,821,120"
std::string count_text(std::int64_t count);
/// "29.6 M", "362 k": three digits or so.
std::string amount_text(double amount);
/// "1 h 12 min", "3 min 5 s", "12.4 s".
std::string duration_text(double seconds);
/// Decimals that suit values up to this size: 3 below 10, 2 below 100, otherwise 1.
int decimals_for(double largest);

/// The characters of a text; U+FFFD for every maximal part that is not UTF-8.
std::vector<char32_t> code_points_of(std::string_view text);
/// Columns of a terminal that the text takes: 0 for combining marks, 2 for wide East Asian characters and emoji.
std::int64_t display_width(std::string_view text);
/// The text without control characters (a terminal would obey them) and without bytes that are not
/// UTF-8: U+FFFD in their place, a space for a tab or a line break.
std::string printable(std::string_view text);
/// At most `width` columns: the middle gives way to an ellipsis, since names differ at both ends. `width` >= 1.
std::string shorten(std::string_view text, std::int64_t width);

/// Text for HTML, in elements and in quoted attributes: & < > " ' escaped, control characters (but
/// tabs and line breaks) and bytes that are not UTF-8 replaced by U+FFFD.
std::string escape(std::string_view text);
/// A share in 4095ths, as scripts of pages read it: NaN is 0.
std::int64_t packed_share(double share);
/// Appends it as two letters of 6 bits: a tenth of the size of decimal JSON.
void append_share(std::string& text, double share);
/// JSON for a <script> element: no <, > or & remains, so that no text can close the element or open a comment.
std::string script_json(const nlohmann::json& value);

}  // namespace quiver::report
