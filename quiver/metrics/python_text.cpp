#include "quiver/metrics/python_text.h"

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/text/unicode.h"

namespace quiver::metrics {
namespace {

/// ASCII alone, whatever the locale.
bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }
bool is_ascii_punctuation(char c) {
  const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return c > ' ' && c < '\x7F' && !is_letter && !is_ascii_digit(c);
}

}  // namespace

void check_utf8(std::string_view text, std::string_view name) {
  if (is_valid_utf8(text)) return;
  fail(ErrorKind::kBadFormat, "the {} of {} bytes is not UTF-8; replace the invalid bytes first", name, text.size());
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const CodePoint first = code_point_at(text, 0);
    if (!is_python_space(first.value)) break;
    text.remove_prefix(static_cast<std::size_t>(first.num_bytes));
  }
  return text;
}

std::string_view strip(std::string_view text) {
  text = strip_left(text);
  while (!text.empty()) {
    const CodePoint last = code_point_before(text, std::ssize(text));
    if (!is_python_space(last.value)) break;
    text.remove_suffix(static_cast<std::size_t>(last.num_bytes));
  }
  return text;
}

std::vector<std::string_view> split_at_space(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  const auto finish = [&](std::size_t end) {
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
  };
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    if (!is_python_space(c)) return;
    const auto end = static_cast<std::size_t>(bytes.data() - text.data());
    finish(end);
    begin = end + bytes.size();
  });
  finish(text.size());
  return parts;
}

std::string without_punctuation(std::string_view text) {
  std::string rest(text);
  std::erase_if(rest, is_ascii_punctuation);
  return rest;
}

std::string without_digits(std::string_view text) {
  std::string rest(text);
  std::erase_if(rest, is_ascii_digit);
  return rest;
}

}  // namespace quiver::metrics
