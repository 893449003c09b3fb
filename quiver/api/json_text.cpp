#include "quiver/api/json_text.h"

#include <array>
#include <charconv>
#include <cmath>

#include "quiver/base/utf8.h"

namespace quiver::api {
namespace {

/// Bytes that stand for themselves between quotes.
constexpr std::array<bool, 256> plain_bytes() {
  std::array<bool, 256> plain{};
  for (std::size_t byte = 0x20; byte < 0x80; ++byte) plain[byte] = byte != '"' && byte != '\\';
  return plain;
}
constexpr auto kPlain = plain_bytes();

void append_escaped(std::string& out, unsigned char byte) {
  switch (byte) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  constexpr char kDigits[] = "0123456789abcdef";
  out += "\\u00";
  out += kDigits[byte >> 4U];
  out += kDigits[byte & 15U];
}

/// Appends valid UTF-8.
void append_text(std::string& out, std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == '"' || byte == '\\') {
      append_escaped(out, byte);
    } else if (byte == 0xE2 && (text.substr(i, 3) == "\u2028" || text.substr(i, 3) == "\u2029")) {
      out += text[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";  // line breaks for JavaScript before 2019 and for Python
      i += 2;
    } else if (byte == 0xC2 && text.substr(i, 2) == "\u0085") {
      out += "\\u0085";
      i += 1;
    } else {
      out += text[i];
    }
  }
}

}  // namespace

void append_json(std::string& out, std::string_view text) {
  out += '"';
  std::size_t num_plain = 0;
  while (num_plain < text.size() && kPlain[static_cast<unsigned char>(text[num_plain])]) ++num_plain;
  out += text.substr(0, num_plain);
  text.remove_prefix(num_plain);
  if (is_valid_utf8(text)) {
    append_text(out, text);
  } else {
    append_text(out, replace_invalid_utf8(text));
  }
  out += '"';
}

void append_json(std::string& out, std::int64_t value) {
  std::array<char, 24> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_json(std::string& out, std::span<const std::int32_t> values) {
  out += '[';
  for (const std::int32_t value : values) {
    if (out.back() != '[') out += ',';
    append_json(out, std::int64_t{value});
  }
  out += ']';
}

void append_log_prob(std::string& out, double value) {
  if (!std::isfinite(value)) value = -9999.0;
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

}  // namespace quiver::api
