// From the syntax of Python's `re` to PCRE2's, by recursive descent along the parser of CPython 3.11 (re/_parser.py): sequences, repeats,
// groups. Whatever the two engines may understand differently is spelled out, so that no option of PCRE2 matters.
#include <algorithm>
#include <map>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/regex/python_pattern.h"
#include "quiver/regex/python_reader.h"

namespace quiver::regex {
namespace {

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

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin, const Surroundings& around) : in_(pattern, origin, around) {}

  TranslatedPattern run() {
    leading_flags();
    alternatives(flags_);
    if (!in_.at_end()) in_.fail_syntax("an unbalanced ')'");
    return {std::move(out_), ignores_case_};
  }

 private:
  /// (?i) and the like, which Python takes at the start of the whole expression only.
  void leading_flags() {
    while (true) {
      if (in_.take_if("(?#")) {
        comment();
        continue;
      }
      const auto start = in_.position();
      if (!in_.take_if("(?") || !(is_letter(in_.peek()) && in_.peek() != 'P')) {
        in_.back_to(start);
        return;
      }
      auto flags = flags_;
      while (is_letter(in_.peek())) set_flag(in_.take(), true, flags);
      if (!in_.take_if(")")) {  // (?i:...), a group
        in_.back_to(start);
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
        if (!is_on) in_.fail_syntax("the flag 'u' turned off");
        return;
      case 'a':
      case 'x': in_.refuse(format("the flag '{}'", std::string(1, static_cast<char>(c))));
      default: in_.fail_syntax("an unknown flag");
    }
    if (!flags.ignore_case) return;
    ignores_case_ = true;
    if (!in_.is_ascii()) {
      in_.refuse("(?i) together with characters outside ASCII");
    }
  }

  Width alternatives(Flags flags) {
    Width width = sequence(flags);
    while (in_.take_if("|")) {
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
    while (!in_.at_end() && in_.peek() != '|' && in_.peek() != ')') {
      std::int64_t low = 0;
      std::int64_t high = 0;
      if (in_.take_if("(?#")) {
        comment();
      } else if (take_repeat(low, high)) {
        if (kind == Item::kNone || kind == Item::kPosition) in_.fail_syntax("nothing to repeat");
        if (kind == Item::kRepeat) in_.fail_syntax("a repeat of a repeat");
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
    if (in_.take_if("*")) return true;
    if (in_.take_if("+")) {
      low = 1;
      return true;
    }
    if (in_.take_if("?")) {
      high = 1;
      return true;
    }
    const auto start = in_.position();
    if (!in_.take_if("{")) return false;
    if (in_.peek() != '}') {
      low = count();
      high = in_.take_if(",") ? count() : low;
      if (in_.take_if("}")) {
        if (high >= 0 && high < low) in_.fail_syntax("a repeat count with its bounds swapped");
        low = std::max<std::int64_t>(low, 0);
        return true;
      }
    }
    in_.back_to(start);
    return false;
  }

  std::int64_t count() {
    std::int64_t value = -1;
    while (is_digit(in_.peek())) value = std::min(std::max<std::int64_t>(value, 0) * 10 + (in_.take() - '0'), kMaxRepeat + 1);
    return value;
  }

  void repeat(std::int64_t low, std::int64_t high, std::size_t start) {
    if (std::max(low, high) > kMaxRepeat) in_.refuse(format("a repeat count above {}", kMaxRepeat));
    out_.insert(start, "(?:");  // an item may be several of PCRE2's
    out_ += high < 0 ? format("){{{},}}", low) : format("){{{},{}}}", low, high);
    if (in_.peek() == '?' || in_.peek() == '+') out_ += static_cast<char>(in_.take());
  }

  Item item(Flags flags, Width& width) {
    const char32_t c = in_.take();
    width = {1, 1};
    switch (c) {
      case '\\': return escape(flags, width);
      case '[': add(character_class(in_), flags); return Item::kOther;
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
    while (!in_.take_if(")")) in_.take();
  }

  /// After '('.
  Item group(Flags flags, Width& width) {
    if (++depth_ > kMaxGroupDepth) in_.refuse(format("groups nested deeper than {}", kMaxGroupDepth));
    if (in_.take_if("?P=")) {
      width = reference(group_named(name(')')), flags);
    } else if (in_.take_if("?P<")) {
      width = capture(flags, name('>'));
    } else if (!in_.take_if("?")) {
      width = capture(flags, "");
    } else if (in_.take_if(":")) {
      width = closed("(?:", flags);
    } else if (in_.take_if(">")) {
      width = closed("(?>", flags);
    } else if (in_.take_if("=") || in_.take_if("!")) {
      closed(in_.text_since(in_.position() - 1) == "=" ? "(?=" : "(?!", flags);
      width = {};
    } else if (in_.take_if("<=") || in_.take_if("<!")) {
      look_behind(in_.text_since(in_.position() - 1) == "=" ? "(?<=" : "(?<!", flags);
      width = {};
    } else if (in_.peek() == '(') {
      in_.refuse("a condition on a group");
    } else {
      width = closed("(?:", scoped_flags(flags));
    }
    --depth_;
    return Item::kOther;
  }

  Width closed(std::string_view opening, Flags flags) {
    out_ += opening;
    const Width width = alternatives(flags);
    if (!in_.take_if(")")) in_.fail_syntax("a group without ')'");
    out_ += ')';
    return width;
  }

  void look_behind(std::string_view opening, Flags flags) {
    ++look_behinds_;
    const Width width = closed(opening, flags);
    --look_behinds_;
    if (!width.is_fixed()) in_.fail_syntax("a look-behind without a fixed width");
  }

  /// After "(?": flags up to ':'.
  Flags scoped_flags(Flags flags) {
    if (!is_letter(in_.peek()) && in_.peek() != '-') in_.fail_syntax("a group of an unknown kind");
    const auto start = in_.position();
    while (is_letter(in_.peek())) set_flag(in_.take(), true, flags);
    const auto turned_on = in_.text_since(start);
    if (in_.peek() == ')') in_.fail_syntax("flags that are not at its start");
    if (in_.take_if("-")) {
      if (!is_letter(in_.peek())) in_.fail_syntax("a missing flag");
      while (is_letter(in_.peek())) {
        if (turned_on.find(static_cast<char>(in_.peek())) != std::string::npos) in_.fail_syntax("a flag turned on and off");
        set_flag(in_.take(), false, flags);
      }
    }
    if (!in_.take_if(":")) in_.fail_syntax("flags without ':'");
    return flags;
  }

  Width capture(Flags flags, const std::string& group_name) {
    const auto number = groups_.size();
    groups_.push_back({});
    if (!group_name.empty() && !names_.emplace(group_name, number).second) in_.fail_syntax(format("a second group '{}'", group_name));
    const Width width = closed("(", flags);
    groups_[number] = {.is_closed = true, .width = width};
    return width;
  }

  std::string name(char end) {
    std::string text;
    while (in_.peek() != static_cast<char32_t>(end)) {
      const char32_t c = in_.take();
      if (c >= 0x80) in_.refuse("a group's name outside ASCII");
      if (!is_letter(c) && c != '_' && !(is_digit(c) && !text.empty())) in_.fail_syntax("a bad name of a group");
      text += static_cast<char>(c);
    }
    in_.take();
    if (text.empty()) in_.fail_syntax("a group without a name");
    return text;
  }

  std::size_t group_named(const std::string& group_name) const {
    const auto found = names_.find(group_name);
    if (found == names_.end()) in_.fail_syntax(format("a reference to the unknown group '{}'", group_name));
    return found->second;
  }

  Width reference(std::size_t number, Flags flags) {
    if (number >= groups_.size()) in_.fail_syntax(format("a reference to group {} of {}", number, groups_.size() - 1));
    if (!groups_[number].is_closed) in_.fail_syntax("a reference to an open group");
    if (look_behinds_ > 0) in_.refuse("a reference inside a look-behind");
    add(format("\\g{{{}}}", number), flags);
    return groups_[number].width;
  }

  /// After a backslash, outside a class.
  Item escape(Flags flags, Width& width) {
    const char32_t c = in_.peek();
    if (const auto position = position_escape(c); !position.empty()) {
      in_.take();
      width = {};
      out_ += position;
      return Item::kPosition;
    }
    if (const auto set = set_of(c); !set.empty()) {
      in_.take();
      out_ += (is_upper(c) ? "[^" : "[") + std::string(set) + "]";
    } else if (is_digit(c) && c != '0') {
      return digits(flags, width);
    } else {
      add(literal(character_escape(in_)), flags);
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
    const char32_t first = in_.take();
    std::size_t number = first - '0';
    if (is_digit(in_.peek())) {
      const char32_t second = in_.take();
      if (is_octal(first) && is_octal(second) && is_octal(in_.peek())) {
        const char32_t value = (first - '0') * 64 + (second - '0') * 8 + (in_.take() - '0');
        if (value > 0377) in_.fail_syntax("an octal escape above \\377");
        add(literal(value), flags);
        return Item::kOther;
      }
      number = number * 10 + (second - '0');
    }
    width = reference(number, flags);
    return Item::kOther;
  }

  /// A capturing group, from its '(' on.
  struct Group {
    bool is_closed = false;
    Width width;
  };

  PythonReader in_;
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
