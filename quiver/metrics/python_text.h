// Texts as Python's str treats them, for metrics whose definition is a Python program.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/text/unicode.h"

namespace quiver::metrics {

/// Throws kBadFormat unless `text` is UTF-8. `name` names the text in the message: "prediction".
void check_utf8(std::string_view text, std::string_view name);

using text::is_python_space;

/// str.strip() and str.lstrip(): `text` without the white space at both ends, or at its beginning. `text` must be valid UTF-8.
std::string_view strip(std::string_view text);
std::string_view strip_left(std::string_view text);

/// str.split(): the parts between runs of white space, none of them empty. `text` must be valid UTF-8.
std::vector<std::string_view> split_at_space(std::string_view text);

/// `text` without string.punctuation, the 32 ASCII characters. Other characters stay, those of Unicode's punctuation, too.
std::string without_punctuation(std::string_view text);
/// `text` without string.digits, 0 to 9.
std::string without_digits(std::string_view text);

}  // namespace quiver::metrics
