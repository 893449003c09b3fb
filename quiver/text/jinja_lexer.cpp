// From a template's text to tokens, with the trimming of jinja2's trim_blocks and lstrip_blocks.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/// Every kind of line end becomes '\n'.
std::string with_plain_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& origin, JinjaDialect dialect)
      : source_(with_plain_newlines(source)), origin_(origin), trims_(dialect == JinjaDialect::kTransformers) {
    if (trims_ && source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (position_ < source_.size()) root();
    push(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(position_); }
  bool at(std::string_view text) const { return rest().starts_with(text); }
  char peek(std::size_t offset = 0) const { return position_ + offset < source_.size() ? source_[position_ + offset] : '\0'; }

  [[noreturn]] void error(std::string_view what) const { fail(ErrorKind::kBadFormat, "{}: line {}: {}", origin_, line_, what); }
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::kUnsupported, "{}: line {}: {}, which Quiver does not implement", origin_, line_, what);
  }

  void push(TokenKind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .integer = 0, .number = 0, .line = line_});
  }
  /// Steps over `count` bytes. Text and marks end here, so a newline at their end starts a line.
  void step(std::size_t count) {
    line_ += std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                        source_.begin() + static_cast<std::ptrdiff_t>(position_ + count), '\n');
    position_ += count;
    if (count > 0) starts_line_ = source_[position_ - 1] == '\n';
  }
  void skip_space() { step(after_space(position_) - position_); }
  std::size_t after_space(std::size_t offset) const {
    while (offset < source_.size()) {
      const CodePoint point = code_point_at(source_, static_cast<std::int64_t>(offset));
      if (!is_python_space(point.value)) break;
      offset += static_cast<std::size_t>(point.num_bytes);
    }
    return offset;
  }

  /// Text up to the next mark, then what the mark opens.
  void root() {
    const std::size_t mark = find_mark(position_);
    const std::string_view text = std::string_view(source_).substr(position_, mark - position_);
    if (mark == source_.size()) {
      push(TokenKind::kData, std::string(text));
      return step(text.size());
    }
    const char kind = source_[mark + 1];
    const char sign = mark + 2 < source_.size() ? source_[mark + 2] : '\0';
    data(text, sign, kind != '{');
    step(2 + (sign == '-' || sign == '+' ? 1U : 0U));
    if (kind == '#') return comment();
    if (kind == '%') {
      if (const auto end = raw_end(position_)) return raw(*end);
    }
    inside_tag(kind == '{');
  }

  std::size_t find_mark(std::size_t from) const {
    for (std::size_t i = from; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    }
    return source_.size();
  }

  /// Pushes the text before a mark and steps over it. '-' strips all white space; without '+', that between line start and block goes.
  void data(std::string_view text, char sign, bool is_block) {
    std::string_view kept = text;
    if (sign == '-') {
      kept = strip(text, {}, false, false, true);
    } else if (trims_ && sign != '+' && is_block) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || starts_line_) && strip(text.substr(start), {}, false, true, false).empty()) kept = text.substr(0, start);
    }
    if (!kept.empty()) push(TokenKind::kData, std::string(kept));
    step(text.size());
  }

  /// The end of `raw %}` at `offset`, if that is what stands there.
  std::optional<std::size_t> raw_end(std::size_t offset) const {
    offset = after_space(offset);
    const std::string_view all = source_;
    if (!all.substr(offset).starts_with("raw")) return std::nullopt;
    offset = after_space(offset + 3);
    if (all.substr(offset).starts_with("%}")) return offset + 2;
    if (all.substr(offset).starts_with("-%}")) return after_space(offset + 3);
    return std::nullopt;
  }

  void raw(std::size_t body) {
    step(body - position_);
    const std::string_view all = source_;
    for (std::size_t mark = all.find("{%", position_); mark != std::string_view::npos; mark = all.find("{%", mark + 1)) {
      const char sign = mark + 2 < all.size() ? all[mark + 2] : '\0';
      std::size_t name = after_space(mark + 2 + (sign == '-' || sign == '+' ? 1U : 0U));
      if (!all.substr(name).starts_with("endraw")) continue;
      name = after_space(name + 6);
      if (!ends_block(name)) continue;
      data(all.substr(position_, mark - position_), sign, true);
      step(name - position_);
      return end_of_block();
    }
    if (position_ < all.size()) error("'raw' without 'endraw'");
  }

  bool ends_block(std::size_t offset) const {
    const std::string_view there = std::string_view(source_).substr(offset);
    return there.starts_with("%}") || there.starts_with("-%}") || there.starts_with("+%}");
  }
  /// Steps over "%}" with its sign and what the sign trims.
  void end_of_block() {
    const char sign = peek();
    step(sign == '%' ? 2 : 3);
    if (sign == '-') return skip_space();
    if (trims_ && sign == '%' && peek() == '\n') step(1);
  }

  void comment() {
    const std::size_t end = source_.find("#}", position_);
    if (end == std::string::npos) error("a comment without '#}'");
    const char sign = end > position_ ? source_[end - 1] : '\0';
    step(end + 2 - position_);
    if (sign == '-') return skip_space();
    if (trims_ && sign != '+' && peek() == '\n') step(1);
  }

  void inside_tag(bool is_variable) {
    push(is_variable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
    brackets_.clear();
    while (true) {
      if (position_ >= source_.size()) error(is_variable ? "'{{' without '}}'" : "'{%' without '%}'");
      if (brackets_.empty() && is_variable && (at("-}}") || at("}}"))) {
        push(TokenKind::kVariableEnd);
        const bool trims = peek() == '-';
        step(trims ? 3 : 2);
        if (trims) skip_space();
        return;
      }
      if (brackets_.empty() && !is_variable && ends_block(position_)) {
        push(TokenKind::kBlockEnd);
        return end_of_block();
      }
      token();
    }
  }

  void token() {
    const char c = peek();
    const CodePoint point = code_point_at(source_, static_cast<std::int64_t>(position_));
    if (is_python_space(point.value)) return step(static_cast<std::size_t>(point.num_bytes));
    if (is_digit(c)) return number();
    if (is_name_start(c)) return name();
    if (c == '\'' || c == '"') return string(c);
    if (static_cast<unsigned char>(c) >= 0x80) refuse("a name with characters other than ASCII");
    operation();
  }

  void name() {
    std::size_t end = position_;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
    if (end < source_.size() && static_cast<unsigned char>(source_[end]) >= 0x80 &&
        !is_python_space(code_point_at(source_, static_cast<std::int64_t>(end)).value)) {
      refuse("a name with characters other than ASCII");
    }
    push(TokenKind::kName, source_.substr(position_, end - position_));
    step(end - position_);
  }

  /// Digits with single underscores between them; the end of them.
  std::size_t digits(std::size_t offset) const {
    while (offset < source_.size() &&
           (is_digit(source_[offset]) || (source_[offset] == '_' && offset + 1 < source_.size() && is_digit(source_[offset + 1])))) {
      ++offset;
    }
    return offset;
  }

  void number() {
    if (peek() == '0' && (std::string_view("xXoObB").find(peek(1)) != std::string_view::npos) && peek(1) != '\0') {
      refuse("a number that is not decimal");
    }
    std::size_t end = digits(position_);
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    bool is_float = false;
    const auto digit_at = [&](std::size_t i) { return i < source_.size() && is_digit(source_[i]); };
    if (!after_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      is_float = true;
      end = digits(end + 1);
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool is_signed = end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (digit_at(end + (is_signed ? 2 : 1))) {
        is_float = true;
        end = digits(end + (is_signed ? 2 : 1));
      }
    }
    std::string text = source_.substr(position_, end - position_);
    std::erase(text, '_');
    push(is_float ? TokenKind::kFloat : TokenKind::kInteger, text);
    Token& token = tokens_.back();
    if (is_float) {
      token.number = std::strtod(text.c_str(), nullptr);
    } else {
      if (text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != std::string::npos) error("a number with a leading zero");
      if (std::from_chars(text.data(), text.data() + text.size(), token.integer).ec != std::errc()) refuse("an integer beyond 64 bits");
    }
    step(end - position_);
  }

  void string(char quote) {
    std::size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("a string without its end");
    push(TokenKind::kString, unescaped(std::string_view(source_).substr(position_ + 1, end - position_ - 1)));
    step(end + 1 - position_);
  }

  std::string unescaped(std::string_view text) const {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      i = escape(text, i + 1, out);
    }
    return out;
  }

  /// Reads the escape whose letter is text[i]; the place of its last byte.
  std::size_t escape(std::string_view text, std::size_t i, std::string& out) const {
    constexpr std::string_view kLetters = "\\'\"abfnrtv\n";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    const char c = text[i];
    if (c == '\n') return i;
    if (const std::size_t simple = kLetters.find(c); simple != std::string_view::npos) {
      out += kValues[simple];
      return i;
    }
    const std::size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    std::uint32_t value = 0;
    if (num_digits > 0) {
      const char* begin = text.data() + i + 1;
      if (i + num_digits >= text.size()) error("an escape that is cut off");
      const auto [end, code] = std::from_chars(begin, begin + num_digits, value, 16);
      if (code != std::errc() || end != begin + num_digits) error("an escape without its hexadecimal digits");
      if (value >= 0xD800 && value <= 0xDFFF) refuse("a lone surrogate in a string");
      if (value > 0x10FFFF) error("an escape beyond Unicode");
      append_utf8(out, value);
      return i + num_digits;
    }
    if (c >= '0' && c <= '7') {
      std::size_t end = i;
      while (end < text.size() && end < i + 3 && text[end] >= '0' && text[end] <= '7') {
        value = value * 8 + static_cast<std::uint32_t>(text[end++] - '0');
      }
      append_utf8(out, value);
      return end - 1;
    }
    if (c == 'N') refuse("the escape \\N");
    out += '\\';
    out += c;
    return i;
  }

  void operation() {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                               "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      balance(op[0]);
      push(TokenKind::kOperator, std::string(op));
      return step(op.size());
    }
    error(format("an unexpected character '{}'", rest().substr(0, 1)));
  }

  void balance(char c) {
    if (c == '(') brackets_ += ')';
    if (c == '[') brackets_ += ']';
    if (c == '{') brackets_ += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (brackets_.empty()) error(format("an unexpected '{}'", std::string_view(&c, 1)));
    if (brackets_.back() != c) {
      error(format("an unexpected '{}' where '{}' should be", std::string_view(&c, 1), std::string_view(&brackets_.back(), 1)));
    }
    brackets_.pop_back();
  }

  std::string source_;
  const std::string& origin_;
  bool trims_;  ///< trim_blocks and lstrip_blocks; the line end at the end of the source goes
  std::size_t position_ = 0;
  std::int64_t line_ = 1;
  bool starts_line_ = true;
  std::string brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& origin, JinjaDialect dialect) {
  return Lexer(source, origin, dialect).run();
}

}  // namespace quiver::text::jinja
