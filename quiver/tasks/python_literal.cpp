#include "quiver/tasks/python_literal.h"

#include <charconv>
#include <cstdint>
#include <string>

#include "quiver/base/utf8.h"

namespace quiver::tasks {
namespace {

/// Reads all of the text as one number, of a base where one is given.
template <typename Number, typename... Base>
bool is_number(std::string_view text, Number& value, Base... base) {
  const std::string whole(text);
  const auto* last = whole.data() + whole.size();
  const auto [stop, error] = std::from_chars(whole.data(), last, value, base...);
  return error == std::errc() && stop == last;
}

using nlohmann::json;

constexpr int kMaxDepth = 64;

/// Reads from the left; a member that returns false has met something else.
class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : rest_(text) {}

  std::optional<json> run() {
    json value;
    if (!read(value, 0)) return std::nullopt;
    skip_space();
    if (!rest_.empty()) return std::nullopt;
    return value;
  }

 private:
  void skip_space() {
    while (!rest_.empty() && std::string_view(" \t\n\r\f").find(rest_.front()) != std::string_view::npos) rest_.remove_prefix(1);
  }
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  bool read(json& value, int depth) {
    skip_space();
    if (rest_.empty() || depth > kMaxDepth) return false;
    if (take("[")) return items(value, ']', depth);
    if (take("(")) return tuple(value, depth);
    if (rest_.front() == '\'' || rest_.front() == '"') return text(value);
    for (const auto& [word, meaning] : {std::pair<std::string_view, json>{"True", true}, {"False", false}, {"None", nullptr}}) {
      if (!take(word)) continue;
      value = meaning;
      return rest_.empty() || std::string_view(" \t\n\r\f,])").find(rest_.front()) != std::string_view::npos;
    }
    return number(value);
  }

  bool items(json& list, char end, int depth) {
    list = json::array();
    while (true) {
      skip_space();
      if (take(std::string_view(&end, 1))) return true;
      if (!list.empty() && !had_comma_) return false;
      json item;
      if (!read(item, depth + 1)) return false;
      list.push_back(std::move(item));
      skip_space();
      had_comma_ = take(",");
    }
  }

  /// (a, b), (a,), (), or a value in parentheses.
  bool tuple(json& value, int depth) {
    had_comma_ = false;
    if (!items(value, ')', depth)) return false;
    if (value.size() == 1 && !had_comma_) value = json(value[0]);
    return true;
  }

  bool text(json& value) {
    const char quote = rest_.front();
    rest_.remove_prefix(1);
    std::string out;
    while (!rest_.empty() && rest_.front() != '\n') {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == quote) {
        if (out.empty() && rest_.starts_with(quote)) return false;  // """: a text of several lines
        value = std::move(out);
        return true;
      }
      if (c != '\\') {
        out += c;
      } else if (!escape(out)) {
        return false;
      }
    }
    return false;
  }

  bool escape(std::string& out) {
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    if (rest_.empty()) return false;
    const char c = rest_.front();
    rest_.remove_prefix(1);
    if (const auto simple = kLetters.find(c); simple != std::string_view::npos) {
      out += kValues[simple];
      return true;
    }
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    std::uint32_t point = 0;
    if (digits == 0 || rest_.size() < digits) return false;
    if (!is_number(rest_.substr(0, digits), point, 16) || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return false;
    append_utf8(out, point);
    rest_.remove_prefix(digits);
    return true;
  }

  bool number(json& value) {
    const auto end = std::min(rest_.find_first_not_of("+-0123456789.eE"), rest_.size());
    const auto whole = rest_.substr(0, end);
    rest_.remove_prefix(end);
    const auto digits = whole.substr(whole.starts_with('-') ? 1 : 0);
    std::int64_t integer = 0;
    if (is_number(whole, integer)) {
      value = integer;
      return !(digits.size() > 1 && digits[0] == '0' && integer != 0);  // 007 is no literal
    }
    if (whole.find_first_of(".eE") == std::string_view::npos) return false;
    double real = 0;
    const bool is_real = is_number(whole, real);
    value = real;
    return is_real;
  }

  std::string_view rest_;
  bool had_comma_ = false;
};

}  // namespace

std::optional<json> python_literal(std::string_view text) { return LiteralReader(text).run(); }

}  // namespace quiver::tasks
