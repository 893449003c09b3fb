// Regular expressions written for Oniguruma, the engine of `tokenizers`.
#pragma once

#include <string>
#include <string_view>

namespace quiver::text {

/// The pattern in PCRE2's syntax, for the options UTF and UCP, that matches what `pattern` matches in Oniguruma:
/// `\s` and `\d` become the classes of Unicode 16, properties gain the characters that PCRE2 may not know. Covers the
/// syntax that tokenizers use: literals, classes, `. ^ $ |`, groups, look-around, `(?i:...)`, greedy, lazy and
/// possessive quantifiers. Throws kUnsupported, naming construct and place, for the rest (back-references, `\b`, `\w`,
/// set operations, ...): there the engines differ.
std::string translate_pattern(std::string_view pattern, const std::string& origin);

}  // namespace quiver::text
