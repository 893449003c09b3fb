// From the syntax of Python's `re` to PCRE2's, by recursive descent along the parser of CPython 3.11 (re/_parser.py).
// Whatever the two engines may understand differently is spelled out, so that no option of PCRE2 matters.
#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/regex/python_pattern.h"

namespace quiver::regex {
namespace {

// Python's \d, \w and \s over str, as members of a class.
constexpr std::string_view kDigit = "\\p{Nd}";
constexpr std::string_view kWord = "\\p{L}\\p{N}_";
constexpr std::string_view kSpace =
    "\\x{9}-\\x{D}\\x{1C}-\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

constexpr std::string_view kAnything = "(?s:.)";
constexpr std::int64_t kMostCharacters = std::int64_t{1} << 40;  // widths beyond are all alike

/// How many characters a part of a pattern can match.
struct Width {
  std::int64_t least = 0;
  std::int64_t most = 0;

  bool is_fixed() const { return least == most; }
};

Width operator+(Width a, Width b) { return {std::min(a.least + b.least, kMostCharacters), std::min(a.most + b.most, kMostCharacters)}; }

struct Flags {
  bool ignore_case = false;
  bool multi_line = false;
  bool dot_all = false;
};

/// What the previous item of a sequence allows to follow.
enum class Item { kNone, kPosition, kRepeat, kOther };

/// The set of an escape such as \d, or nothing.
std::string_view set_of(char32_t c) {
  switch (c) {
    case 'd':
    case 'D': return kDigit;
    case 's':
    case 'S': return kSpace;
    case 'w':
    case 'W': return kWord;
    default: return "";
  }
}

bool is_upper(char32_t c) { return c >= 'A' && c <= 'Z'; }
bool is_letter(char32_t c) { return is_upper(c) || (c >= 'a' && c <= 'z'); }
bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_octal(char32_t c) { return c >= '0' && c <= '7'; }

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin, const Surroundings& around)
      : pattern_(pattern), origin_(origin), num_before_(static_cast<std::int64_t>(around.before.size())) {
    text_ = std::string(around.before) + std::string(pattern) + std::string(around.after);
  }

  TranslatedPattern run() {
    leading_flags();
    alternatives(flags_);
    if (!at_end()) fail_syntax("an unbalanced ')'");
    return {std::move(out_), ignores_case_};
  }

 private:
  bool at_end() const { return position_ >= static_cast<std::int64_t>(text_.size()); }
  char32_t peek() const { return at_end() ? 0 : code_point_at(text_, position_).value; }
  char32_t take() {
    if (at_end()) fail_syntax("its end, too early");
    const CodePoint point = code_point_at(text_, position_);
    position_ += point.num_bytes;
    return point.value;
  }
  bool take_if(std::string_view text) {
    if (!std::string_view(text_).substr(static_cast<std::size_t>(position_)).starts_with(text)) return false;
    position_ += static_cast<std::int64_t>(text.size());
    return true;
  }
  std::int64_t place() const { return std::clamp<std::int64_t>(position_ - num_before_, 0, static_cast<std::int64_t>(pattern_.size())); }
  [[noreturn]] void fail_syntax(std::string_view what) const {
    fail(ErrorKind::kBadFormat, "{}: '{}' is no regular expression of Python: it has {} at byte {}", origin_, excerpt(pattern_), what,
         place());
  }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::kUnsupported, "{}: the regular expression '{}' has {} at byte {}, which Quiver does not implement", origin_,
         excerpt(pattern_), what, place());
  }

  /// (?i) and the like, which Python takes at the start of the whole expression only.
  void leading_flags() {
    while (true) {
      if (take_if("(?#")) {
        comment();
        continue;
      }
      const auto start = position_;
      if (!take_if("(?") || !(is_letter(peek()) && peek() != 'P')) {
        position_ = start;
        return;
      }
      auto flags = flags_;
      while (is_letter(peek())) set_flag(take(), true, flags);
      if (!take_if(")")) {  // (?i:...), a group
        position_ = start;
        return;
      }
      flags_ = flags;
    }
  }

  void set_flag(char32_t c, bool is_on, Flags& flags) {
    switch (c) {
      case 'i': flags.ignore_case = is_on; break;
      case 'm': flags.multi_line = is_on; break;
      case 's': flags.dot_all = is_on; break;
      case 'u':
        if (!is_on) fail_syntax("the flag 'u' turned off");
        return;
      case 'a':
      case 'x': refuse(format("the flag '{}'", std::string(1, static_cast<char>(c))));
      default: fail_syntax("an unknown flag");
    }
    if (!flags.ignore_case) return;
    ignores_case_ = true;
    if (std::ranges::any_of(text_, [](char byte) { return static_cast<unsigned char>(byte) >= 0x80; })) {
      refuse("(?i) together with characters outside ASCII");
    }
  }

  Width alternatives(Flags flags) {
    Width width = sequence(flags);
    while (take_if("|")) {
      out_ += '|';
      const Width other = sequence(flags);
      width = {std::min(width.least, other.least), std::max(width.most, other.most)};
    }
    return width;
  }

  /// Items up to '|', ')' or the end.
  Width sequence(Flags flags) {
    Width width;
    Width last;
    auto kind = Item::kNone;
    std::size_t start = out_.size();  // of the last item
    while (!at_end() && peek() != '|' && peek() != ')') {
      std::int64_t low = 0;
      std::int64_t high = 0;
      if (take_if("(?#")) {
        comment();
      } else if (take_repeat(low, high)) {
        if (kind == Item::kNone || kind == Item::kPosition) fail_syntax("nothing to repeat");
        if (kind == Item::kRepeat) fail_syntax("a repeat of a repeat");
        repeat(low, high, start);
        width = width + Width{last.least * std::max<std::int64_t>(low - 1, 0), 0};
        if (low == 0) width.least -= last.least;
        const bool is_unbounded = high < 0 && last.most > 0;
        width.most = is_unbounded ? kMostCharacters
                                  : std::min(width.most - last.most + last.most * std::max<std::int64_t>(high, 0), kMostCharacters);
        kind = Item::kRepeat;
      } else {
        start = out_.size();
        kind = item(flags, last);
        width = width + last;
      }
    }
    return width;
  }

  /// *, +, ?, {n}, {n,}, {,m} or {n,m}; `high` is -1 for no bound. A '{' that starts no repeat stands for itself.
  bool take_repeat(std::int64_t& low, std::int64_t& high) {
    low = 0;
    high = -1;
    if (take_if("*")) return true;
    if (take_if("+")) {
      low = 1;
      return true;
    }
    if (take_if("?")) {
      high = 1;
      return true;
    }
    const auto start = position_;
    if (!take_if("{")) return false;
    if (peek() != '}') {
      low = count();
      high = take_if(",") ? count() : low;
      if (take_if("}")) {
        if (high >= 0 && high < low) fail_syntax("a repeat count with its bounds swapped");
        low = std::max<std::int64_t>(low, 0);
        return true;
      }
    }
    position_ = start;
    return false;
  }

  std::int64_t count() {
    std::int64_t value = -1;
    while (is_digit(peek())) value = std::min(std::max<std::int64_t>(value, 0) * 10 + (take() - '0'), kMaxRepeat + 1);
    return value;
  }

  void repeat(std::int64_t low, std::int64_t high, std::size_t start) {
    if (std::max(low, high) > kMaxRepeat) refuse(format("a repeat count above {}", kMaxRepeat));
    out_.insert(start, "(?:");  // an item may be several of PCRE2's
    out_ += high < 0 ? format("){{{},}}", low) : format("){{{},{}}}", low, high);
    if (peek() == '?' || peek() == '+') out_ += static_cast<char>(take());
  }

  Item item(Flags flags, Width& width) {
    const char32_t c = take();
    width = {1, 1};
    switch (c) {
      case '\\': return escape(flags, width);
      case '[': character_class(flags); return Item::kOther;
      case '(': return group(flags, width);
      case '.': out_ += flags.dot_all ? kAnything : "[^\\n]"; return Item::kOther;
      case '^':
        width = {};
        out_ += flags.multi_line ? "(?<![^\\n])" : "\\A";
        return Item::kPosition;
      case '$':
        width = {};
        out_ += flags.multi_line ? "(?![^\\n])" : "(?=\\n?\\z)";
        return Item::kPosition;
      default: add(literal(c), flags); return Item::kOther;
    }
  }

  void add(std::string_view atom, Flags flags) {
    if (flags.ignore_case) out_ += "(?i:";
    out_ += atom;
    if (flags.ignore_case) out_ += ')';
  }

  void comment() {
    while (!take_if(")")) take();
  }

  /// After '('.
  Item group(Flags flags, Width& width) {
    if (++depth_ > kMaxGroupDepth) refuse(format("groups nested deeper than {}", kMaxGroupDepth));
    if (take_if("?P=")) {
      width = reference(group_named(name(')')), flags);
    } else if (take_if("?P<")) {
      width = capture(flags, name('>'));
    } else if (!take_if("?")) {
      width = capture(flags, "");
    } else if (take_if(":")) {
      width = closed("(?:", flags);
    } else if (take_if(">")) {
      width = closed("(?>", flags);
    } else if (take_if("=") || take_if("!")) {
      closed(text_[static_cast<std::size_t>(position_ - 1)] == '=' ? "(?=" : "(?!", flags);
      width = {};
    } else if (take_if("<=") || take_if("<!")) {
      look_behind(text_[static_cast<std::size_t>(position_ - 1)] == '=' ? "(?<=" : "(?<!", flags);
      width = {};
    } else if (peek() == '(') {
      refuse("a condition on a group");
    } else {
      width = closed("(?:", scoped_flags(flags));
    }
    --depth_;
    return Item::kOther;
  }

  Width closed(std::string_view opening, Flags flags) {
    out_ += opening;
    const Width width = alternatives(flags);
    if (!take_if(")")) fail_syntax("a group without ')'");
    out_ += ')';
    return width;
  }

  void look_behind(std::string_view opening, Flags flags) {
    ++look_behinds_;
    const Width width = closed(opening, flags);
    --look_behinds_;
    if (!width.is_fixed()) fail_syntax("a look-behind without a fixed width");
  }

  /// After "(?": flags up to ':'.
  Flags scoped_flags(Flags flags) {
    if (!is_letter(peek()) && peek() != '-') fail_syntax("a group of an unknown kind");
    const auto start = position_;
    while (is_letter(peek())) set_flag(take(), true, flags);
    const auto turned_on = text_.substr(static_cast<std::size_t>(start), static_cast<std::size_t>(position_ - start));
    if (peek() == ')') fail_syntax("flags that are not at its start");
    if (take_if("-")) {
      if (!is_letter(peek())) fail_syntax("a missing flag");
      while (is_letter(peek())) {
        if (turned_on.find(static_cast<char>(peek())) != std::string::npos) fail_syntax("a flag turned on and off");
        set_flag(take(), false, flags);
      }
    }
    if (!take_if(":")) fail_syntax("flags without ':'");
    return flags;
  }

  Width capture(Flags flags, const std::string& group_name) {
    const auto number = groups_.size();
    groups_.push_back({});
    if (!group_name.empty() && !names_.emplace(group_name, number).second) fail_syntax(format("a second group '{}'", group_name));
    const Width width = closed("(", flags);
    groups_[number] = {.is_closed = true, .width = width};
    return width;
  }

  std::string name(char end) {
    std::string text;
    while (peek() != static_cast<char32_t>(end)) {
      const char32_t c = take();
      if (c >= 0x80) refuse("a group's name outside ASCII");
      if (!is_letter(c) && c != '_' && !(is_digit(c) && !text.empty())) fail_syntax("a bad name of a group");
      text += static_cast<char>(c);
    }
    take();
    if (text.empty()) fail_syntax("a group without a name");
    return text;
  }

  std::size_t group_named(const std::string& group_name) const {
    const auto found = names_.find(group_name);
    if (found == names_.end()) fail_syntax(format("a reference to the unknown group '{}'", group_name));
    return found->second;
  }

  Width reference(std::size_t number, Flags flags) {
    if (number >= groups_.size()) fail_syntax(format("a reference to group {} of {}", number, groups_.size() - 1));
    if (!groups_[number].is_closed) fail_syntax("a reference to an open group");
    if (look_behinds_ > 0) refuse("a reference inside a look-behind");
    add(format("\\g{{{}}}", number), flags);
    return groups_[number].width;
  }

  /// After a backslash, outside a class.
  Item escape(Flags flags, Width& width) {
    const char32_t c = peek();
    if (const auto position = position_escape(c); !position.empty()) {
      take();
      width = {};
      out_ += position;
      return Item::kPosition;
    }
    if (const auto set = set_of(c); !set.empty()) {
      take();
      out_ += (is_upper(c) ? "[^" : "[") + std::string(set) + "]";
    } else if (is_digit(c) && c != '0') {
      return digits(flags, width);
    } else {
      add(literal(character_escape()), flags);
    }
    return Item::kOther;
  }

  static std::string position_escape(char32_t c) {
    const auto word = [](std::string_view opening) { return std::string(opening) + "[" + std::string(kWord) + "])"; };
    switch (c) {
      case 'A': return "\\A";
      case 'Z': return "\\z";
      case 'b': return "(?:" + word("(?<=") + word("(?!") + "|" + word("(?<!") + word("(?=") + ")";
      case 'B': return "(?:" + word("(?<=") + word("(?=") + "|" + word("(?<!") + word("(?!") + ")";
      default: return "";
    }
  }

  /// \1 to \99, or three octal digits.
  Item digits(Flags flags, Width& width) {
    const char32_t first = take();
    std::size_t number = first - '0';
    if (is_digit(peek())) {
      const char32_t second = take();
      if (is_octal(first) && is_octal(second) && is_octal(peek())) {
        const char32_t value = (first - '0') * 64 + (second - '0') * 8 + (take() - '0');
        if (value > 0377) fail_syntax("an octal escape above \\377");
        add(literal(value), flags);
        return Item::kOther;
      }
      number = number * 10 + (second - '0');
    }
    width = reference(number, flags);
    return Item::kOther;
  }

  /// After a backslash: one character, inside or outside a class.
  char32_t character_escape() {
    const char32_t c = take();
    switch (c) {
      case 'a': return '\a';
      case 'f': return '\f';
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'v': return '\v';
      case 'x': return hexadecimal(2);
      case 'u': return hexadecimal(4);
      case 'U': return hexadecimal(8);
      case 'N': refuse("a character by its name");
      default: break;
    }
    if (c == '0') {
      char32_t value = 0;
      for (int i = 0; i < 2 && is_octal(peek()); ++i) value = value * 8 + (take() - '0');
      return value;
    }
    if (is_letter(c) || is_digit(c)) fail_syntax(format("the escape '\\{}'", std::string(1, static_cast<char>(c))));
    return c;
  }

  char32_t hexadecimal(int num_digits) {
    char32_t value = 0;
    for (int i = 0; i < num_digits; ++i) {
      const char32_t c = peek();
      const char32_t lower = c | 0x20;
      if (!is_digit(c) && !(lower >= 'a' && lower <= 'f')) fail_syntax("an incomplete hexadecimal escape");
      value = value * 16 + (is_digit(c) ? c - '0' : lower - 'a' + 10);
      take();
    }
    if (value > 0x10FFFF) fail_syntax("an escape beyond Unicode");
    if (value >= 0xD800 && value <= 0xDFFF) refuse("half of a surrogate pair");
    return value;
  }

  /// A member of a class: a character, or a set.
  struct Member {
    char32_t c = 0;
    std::string_view set = "";
    bool is_complement = false;
  };

  Member class_member() {
    if (!take_if("\\")) return {.c = take()};
    const char32_t c = peek();
    if (const auto set = set_of(c); !set.empty()) {
      take();
      return {.set = set, .is_complement = is_upper(c)};
    }
    if (take_if("b")) return {.c = '\b'};
    if (is_octal(c)) {
      char32_t value = 0;
      for (int i = 0; i < 3 && is_octal(peek()); ++i) value = value * 8 + (take() - '0');
      if (value > 0377) fail_syntax("an octal escape above \\377");
      return {.c = value};
    }
    return {.c = character_escape()};
  }

  /// After '['. Complements such as \W cannot stand beside other members in PCRE2, and become alternatives.
  void character_class(Flags flags) {
    const bool is_negated = take_if("^");
    std::string members;
    std::vector<std::string_view> complements;
    const auto put = [&](const Member& member) {
      if (member.set.empty()) {
        members += literal(member.c);
      } else if (member.is_complement) {
        complements.push_back(member.set);
      } else {
        members += member.set;
      }
    };
    for (bool is_first = true; is_first || !take_if("]"); is_first = false) {
      const Member first = class_member();
      if (!take_if("-")) {
        put(first);
        continue;
      }
      if (take_if("]")) {
        put(first);
        members += literal('-');
        break;
      }
      const Member last = class_member();
      if (!first.set.empty() || !last.set.empty()) fail_syntax("a range between sets");
      if (last.c < first.c) fail_syntax("a range with its ends swapped");
      members += literal(first.c) + "-" + literal(last.c);
    }
    add(class_source(members, complements, is_negated), flags);
  }

  static std::string class_source(const std::string& members, const std::vector<std::string_view>& complements, bool is_negated) {
    if (complements.empty()) return (is_negated ? "[^" : "[") + members + "]";
    std::string any = members.empty() ? "" : "[" + members + "]";
    for (const auto set : complements) any += (any.empty() ? "[^" : "|[^") + std::string(set) + "]";
    return is_negated ? "(?:(?!" + any + ")" + std::string(kAnything) + ")" : "(?:" + any + ")";
  }

  /// A capturing group, from its '(' on.
  struct Group {
    bool is_closed = false;
    Width width;
  };

  std::string_view pattern_;
  const std::string& origin_;
  std::int64_t num_before_;
  std::string text_;  ///< the pattern with what surrounds it
  std::int64_t position_ = 0;
  std::int64_t depth_ = 0;
  std::int64_t look_behinds_ = 0;  ///< that are open
  Flags flags_;
  bool ignores_case_ = false;
  std::vector<Group> groups_ = {{}};  ///< by number; 0 is the whole match, which is open
  std::map<std::string, std::size_t> names_;
  std::string out_;
};

}  // namespace

TranslatedPattern translate_python(std::string_view pattern, const std::string& origin, const Surroundings& around) {
  if (!is_valid_utf8(pattern)) fail(ErrorKind::kBadFormat, "{}: a regular expression is not valid UTF-8", origin);
  if (static_cast<std::int64_t>(pattern.size()) > kMaxPatternBytes) {
    fail(ErrorKind::kUnsupported, "{}: a regular expression of {} bytes; at most {} are read", origin, pattern.size(), kMaxPatternBytes);
  }
  return Translator(pattern, origin, around).run();
}

}  // namespace quiver::regex
