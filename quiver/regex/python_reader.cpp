#include "quiver/regex/python_reader.h"

#include <algorithm>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::regex {
namespace {

// Python's \d and \s over str, as members of a class.
constexpr std::string_view kDigit = "\\p{Nd}";
constexpr std::string_view kSpace =
    "\\x{9}-\\x{D}\\x{1C}-\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}";

char32_t hexadecimal(PythonReader& in, int num_digits) {
  char32_t value = 0;
  for (int i = 0; i < num_digits; ++i) {
    const char32_t c = in.peek();
    const char32_t lower = c | 0x20;
    if (!is_digit(c) && !(lower >= 'a' && lower <= 'f')) in.fail_syntax("an incomplete hexadecimal escape");
    value = value * 16 + (is_digit(c) ? c - '0' : lower - 'a' + 10);
    in.take();
  }
  if (value > 0x10FFFF) in.fail_syntax("an escape beyond Unicode");
  if (value >= 0xD800 && value <= 0xDFFF) in.refuse("half of a surrogate pair");
  return value;
}

/// A member of a class: a character, or a set.
struct Member {
  char32_t c = 0;
  std::string_view set = "";
  bool is_complement = false;
};

Member class_member(PythonReader& in) {
  if (!in.take_if("\\")) return {.c = in.take()};
  const char32_t c = in.peek();
  if (const auto set = set_of(c); !set.empty()) {
    in.take();
    return {.set = set, .is_complement = is_upper(c)};
  }
  if (in.take_if("b")) return {.c = '\b'};
  if (is_octal(c)) {
    char32_t value = 0;
    for (int i = 0; i < 3 && is_octal(in.peek()); ++i) value = value * 8 + (in.take() - '0');
    if (value > 0377) in.fail_syntax("an octal escape above \\377");
    return {.c = value};
  }
  return {.c = character_escape(in)};
}

std::string class_source(const std::string& members, const std::vector<std::string_view>& complements, bool is_negated) {
  if (complements.empty()) return (is_negated ? "[^" : "[") + members + "]";
  std::string any = members.empty() ? "" : "[" + members + "]";
  for (const auto set : complements) any += (any.empty() ? "[^" : "|[^") + std::string(set) + "]";
  return is_negated ? "(?:(?!" + any + ")" + std::string(kAnything) + ")" : "(?:" + any + ")";
}

}  // namespace

PythonReader::PythonReader(std::string_view pattern, const std::string& origin, const Surroundings& around)
    : pattern_(pattern), origin_(origin), num_before_(static_cast<std::int64_t>(around.before.size())) {
  text_ = std::string(around.before) + std::string(pattern) + std::string(around.after);
}

char32_t PythonReader::peek() const { return at_end() ? 0 : code_point_at(text_, position_).value; }

char32_t PythonReader::take() {
  if (at_end()) fail_syntax("its end, too early");
  const CodePoint point = code_point_at(text_, position_);
  position_ += point.num_bytes;
  return point.value;
}

bool PythonReader::take_if(std::string_view text) {
  if (!std::string_view(text_).substr(static_cast<std::size_t>(position_)).starts_with(text)) return false;
  position_ += static_cast<std::int64_t>(text.size());
  return true;
}

std::string_view PythonReader::text_since(std::int64_t position) const {
  return std::string_view(text_).substr(static_cast<std::size_t>(position), static_cast<std::size_t>(position_ - position));
}

std::int64_t PythonReader::place() const {
  return std::clamp<std::int64_t>(position_ - num_before_, 0, static_cast<std::int64_t>(pattern_.size()));
}

void PythonReader::fail_syntax(std::string_view what) const {
  fail(ErrorKind::kBadFormat, "{}: '{}' is no regular expression of Python: it has {} at byte {}", origin_, excerpt(pattern_), what,
       place());
}

void PythonReader::refuse(std::string_view what) const {
  fail(ErrorKind::kUnsupported, "{}: the regular expression '{}' has {} at byte {}, which Quiver does not implement", origin_,
       excerpt(pattern_), what, place());
}

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

char32_t character_escape(PythonReader& in) {
  const char32_t c = in.take();
  switch (c) {
    case 'a': return '\a';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'v': return '\v';
    case 'x': return hexadecimal(in, 2);
    case 'u': return hexadecimal(in, 4);
    case 'U': return hexadecimal(in, 8);
    case 'N': in.refuse("a character by its name");
    default: break;
  }
  if (c == '0') {
    char32_t value = 0;
    for (int i = 0; i < 2 && is_octal(in.peek()); ++i) value = value * 8 + (in.take() - '0');
    return value;
  }
  if (is_letter(c) || is_digit(c)) in.fail_syntax(format("the escape '\\{}'", std::string(1, static_cast<char>(c))));
  return c;
}

std::string character_class(PythonReader& in) {
  const bool is_negated = in.take_if("^");
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
  for (bool is_first = true; is_first || !in.take_if("]"); is_first = false) {
    const Member first = class_member(in);
    if (!in.take_if("-")) {
      put(first);
      continue;
    }
    if (in.take_if("]")) {
      put(first);
      members += literal('-');
      break;
    }
    const Member last = class_member(in);
    if (!first.set.empty() || !last.set.empty()) in.fail_syntax("a range between sets");
    if (last.c < first.c) in.fail_syntax("a range with its ends swapped");
    members += literal(first.c) + "-" + literal(last.c);
  }
  return class_source(members, complements, is_negated);
}

}  // namespace quiver::regex
