// From Oniguruma's syntax (its Ruby flavour) to PCRE2's. A pattern is copied construct by construct, so that whatever
// is not known here to mean the same in both engines is refused.
#include <algorithm>
#include <array>

#include "quiver/base/error.h"
#include "quiver/regex/pattern.h"
#include "quiver/text/oniguruma.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

using regex::literal;

// White_Space and its complement, spelled out: PCRE2's own \s has U+180E as well.
constexpr std::string_view kSpace =
    "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";
constexpr std::string_view kNotSpace =
    "\\x{00}-\\x{08}\\x{0E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}"
    "\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}";

constexpr std::array<std::string_view, 35> kProperties{
    "L",  "M",  "N",  "P",  "S",  "Z",  "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me",  "Nd",       "Nl",       "No",    "Pc",
    "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Han", "Hiragana", "Katakana", "Hangul"};

bool is_alphanumeric(char32_t c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The ranges that `property` gained after Unicode 14, as members of a class.
std::string recent_members(std::string_view property) {
  std::string out;
  for (const RecentRange& range : recent_ranges()) {
    const bool is_member =
        range.property == property || (property.size() == 1 && range.property.size() == 2 && range.property[0] == property[0]);
    if (is_member) out += literal(range.first) + "-" + literal(range.last);
  }
  return out;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin) : pattern_(pattern), origin_(origin) {}

  std::string run() {
    while (!at_end()) item();
    if (depth_ != 0) refuse("a group without ')'");
    check_case_folding();
    return std::move(out_);
  }

 private:
  bool at_end() const { return position_ >= static_cast<std::int64_t>(pattern_.size()); }
  char32_t peek() const { return at_end() ? 0 : code_point_at(pattern_, position_).value; }
  char32_t take() {
    if (at_end()) refuse("its end, too early");
    const CodePoint point = code_point_at(pattern_, position_);
    position_ += point.num_bytes;
    return point.value;
  }
  bool take_if(std::string_view text) {
    if (!pattern_.substr(static_cast<std::size_t>(position_)).starts_with(text)) return false;
    position_ += static_cast<std::int64_t>(text.size());
    return true;
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::kUnsupported, "{}: the pattern '{}' has {} at byte {}, which Quiver does not implement", origin_,
         regex::excerpt(pattern_), what, position_);
  }

  void item() {
    const char32_t c = take();
    switch (c) {
      case '\\': return escape();
      case '[': return character_class();
      case '(': return group();
      case ')':
        if (depth_ == caseless_depth_) caseless_depth_ = 0;
        if (depth_-- == 0) refuse("')' without a group");
        out_ += ')';
        return;
      case '{': return interval();
      case '*':
      case '+':
      case '?':
        out_ += static_cast<char>(c);
        if (peek() == '?' || peek() == '+') out_ += static_cast<char>(take());
        if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') refuse("a quantifier of a quantifier");
        return;
      case '|':
      case '.': out_ += static_cast<char>(c); return;
      case '^': out_ += "(?m:^)"; return;  // in Ruby's flavour '^' and '$' always belong to lines
      case '$': out_ += "(?m:$)"; return;
      default: out_ += literal(c);
    }
  }

  void group() {
    ++depth_;
    if (depth_ > regex::kMaxGroupDepth) refuse(format("groups nested deeper than {}", regex::kMaxGroupDepth));
    if (!take_if("?")) {
      out_ += "(?:";  // nothing refers to what a group captures
      return;
    }
    for (const std::string_view kind : {":", "=", "!", ">", "<=", "<!", "i:"}) {
      if (!take_if(kind)) continue;
      if (kind == "i:") {
        has_caseless_ = true;
        if (caseless_depth_ == 0) caseless_depth_ = depth_;
      }
      out_ += "(?";
      out_ += kind;
      return;
    }
    refuse("a group of an unknown kind");
  }

  std::int64_t number() {
    std::int64_t value = -1;
    while (peek() >= '0' && peek() <= '9') {
      value = std::max<std::int64_t>(value, 0) * 10 + (take() - '0');
      if (value > regex::kMaxRepeat) refuse(format("a repeat count above {}", regex::kMaxRepeat));
    }
    return value;
  }

  /// {n}, {n,}, {,m} or {n,m}
  void interval() {
    const std::int64_t low = number();
    const bool has_comma = take_if(",");
    const std::int64_t high = has_comma ? number() : low;
    if (!take_if("}") || (low < 0 && high < 0)) refuse("'{' that starts no repeat count");
    if (high >= 0 && high < low) refuse("a repeat count with its bounds swapped");
    out_ += high < 0 ? format("{{{},}}", low) : format("{{{},{}}}", std::max<std::int64_t>(low, 0), high);
    if (has_comma && take_if("?")) out_ += '?';
    // In Ruby's flavour {n,m}+ repeats the repeat, in PCRE2's it is possessive.
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') refuse("a quantifier of a quantifier");
  }

  void escape() {
    const char32_t c = peek();
    std::string members;
    bool negated = false;
    if (class_escape(members, negated)) {
      if (caseless_depth_ != 0) refuse("a class inside (?i:...)");
      out_ += (negated ? "[^" : "[") + members + "]";
    } else if (c == 'A' || c == 'z') {
      take();
      out_ += c == 'A' ? "\\A" : "\\z";
    } else {
      out_ += literal(character_escape());
    }
  }

  /// After a backslash: a set such as \s, as members of a class or of a negated class; false if none starts here.
  bool class_escape(std::string& members, bool& negated) {
    const char32_t c = peek();
    if (c == 's' || c == 'S') {
      members = kSpace;
    } else if (c == 'd' || c == 'D') {
      members = "\\p{Nd}" + recent_members("Nd");
    } else if (c == 'p' || c == 'P') {
      take();
      property(members, negated);
      negated = negated != (c == 'P');
      return true;
    } else {
      return false;
    }
    negated = c == 'S' || c == 'D';
    take();
    return true;
  }

  void property(std::string& members, bool& negated) {
    if (!take_if("{")) refuse("a property without '{'");
    negated = take_if("^");
    std::string name;
    while (!at_end() && peek() != '}') append_utf8(name, take());
    if (!take_if("}")) refuse("a property without '}'");
    if (name.empty() || std::ranges::find(kProperties, name) == kProperties.end()) {
      refuse("the property '" + name + "'");
    }
    // PCRE2's plain \p{Han} has the characters that several scripts share as well; "sc:" is the script alone.
    members = (name.size() > 2 ? "\\p{sc:" : "\\p{") + name + "}" + recent_members(name);
  }

  /// After a backslash: one character.
  char32_t character_escape() {
    const char32_t c = take();
    switch (c) {
      case 't': return '\t';
      case 'n': return '\n';
      case 'r': return '\r';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'a': return '\a';
      case 'e': return 0x1B;
      case 'x': return take_if("{") ? hexadecimal(1, 8, true) : hexadecimal(2, 2, false);
      case 'u': return hexadecimal(4, 4, false);
      default: break;
    }
    if (is_alphanumeric(c)) refuse(format("the escape '\\{}'", std::string(1, static_cast<char>(c))));
    return c;
  }

  char32_t hexadecimal(int min_digits, int max_digits, bool braced) {
    char32_t value = 0;
    int digits = 0;
    for (; digits < max_digits; ++digits) {
      const char32_t c = peek();
      const bool is_decimal = c >= '0' && c <= '9';
      const char32_t lower = c | 0x20;
      if (!is_decimal && !(lower >= 'a' && lower <= 'f')) break;
      value = value * 16 + (is_decimal ? c - '0' : lower - 'a' + 10);
      take();
    }
    // \xE9 is a byte for Oniguruma, not a character
    const bool is_scalar = value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    if (digits < min_digits || !is_scalar || (max_digits == 2 && value >= 0x80)) refuse("a bad hexadecimal escape");
    if (braced && !take_if("}")) refuse("a hexadecimal escape without '}'");
    return value;
  }

  void character_class() {
    if (caseless_depth_ != 0) refuse("a class inside (?i:...)");
    out_ += take_if("^") ? "[^" : "[";
    if (peek() == ']') refuse("an empty class");
    while (!take_if("]")) {
      if (at_end()) refuse("a class without ']'");
      if (peek() == '[') refuse("a class inside a class");
      if (take_if("&&")) refuse("'&&' inside a class");
      class_member();
    }
    out_ += ']';
  }

  void class_member() {
    std::string members;
    bool negated = false;
    const bool is_escape = take_if("\\");
    if (is_escape && class_escape(members, negated)) {
      if (negated && members == kSpace) {
        members = kNotSpace;
      } else if (negated) {
        refuse("a negated property inside a class");
      }
      if (peek() == '-' && !pattern_.substr(static_cast<std::size_t>(position_)).starts_with("-]")) {
        refuse("'-' after a set inside a class");
      }
      out_ += members;
      return;
    }
    const char32_t first = is_escape ? character_escape() : take();
    out_ += literal(first);
    if (peek() != '-' || pattern_.substr(static_cast<std::size_t>(position_)).starts_with("-]")) return;
    take();
    char32_t last = 0;
    if (take_if("\\")) {
      if (class_escape(members, negated)) refuse("a set at the end of a range");
      last = character_escape();
    } else {
      if (peek() == '[') refuse("a class inside a class");
      last = take();
    }
    if (last < first) refuse("a range with its ends swapped");
    out_ += "-" + literal(last);
  }

  /// Without regard to case, Oniguruma also takes "ss" for 'ß' and the like; PCRE2 does not.
  void check_case_folding() const {
    if (!has_caseless_) return;
    std::string lower;
    if (!is_ascii(pattern_)) refuse("(?i:...) together with letters outside ASCII");
    for_each_character(pattern_, [&](std::string_view, char32_t c) { append_lowercase(lower, c); });
    for (const std::string_view pair : {"ss", "ff", "fi", "fl", "st"}) {
      if (lower.find(pair) != std::string::npos) refuse("(?i:...) together with '" + std::string(pair) + "'");
    }
  }

  std::string_view pattern_;
  const std::string& origin_;
  std::int64_t position_ = 0;
  std::int64_t depth_ = 0;
  std::int64_t caseless_depth_ = 0;  ///< of the outermost (?i:...) that is open, or 0
  bool has_caseless_ = false;
  std::string out_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& origin) {
  if (!is_valid_utf8(pattern)) fail(ErrorKind::kBadFormat, "{}: a split pattern is not valid UTF-8", origin);
  if (static_cast<std::int64_t>(pattern.size()) > regex::kMaxPatternBytes) {
    fail(ErrorKind::kUnsupported, "{}: a split pattern of {} bytes; at most {} are read", origin, pattern.size(), regex::kMaxPatternBytes);
  }
  return Translator(pattern, origin).run();
}

}  // namespace quiver::text
