#include "quiver/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

namespace quiver::text {
namespace {

constexpr RecentRange kRecent[] = {
#include "quiver/text/unicode_recent.inc"
};

struct Range {
  char32_t first;
  char32_t last;
};
constexpr Range kAfterUnicode9[] = {
#include "quiver/text/unicode_after9.inc"
};

bool is_recent(char32_t c, std::string_view first_letters, std::string_view categories) {
  if (c < 0x897) return false;  // the first of the table
  for (const RecentRange& range : kRecent) {
    if (c < range.first || c > range.last || range.property.size() != 2) continue;
    if (first_letters.find(range.property[0]) != std::string_view::npos) return true;
    if (categories.find(range.property) != std::string_view::npos) return true;
  }
  return false;
}

/// byte -> printable character: itself for printable Latin-1, else 256 and up in order (Radford et al. 2019).
struct ByteTable {
  std::array<char32_t, 256> character{};
  std::array<std::string, 256> spelling;
  std::array<std::int16_t, 512> byte{};  ///< character -> byte, or -1

  ByteTable() {
    byte.fill(-1);
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      const char32_t c = printable ? b : next++;
      character[b] = c;
      byte[c] = static_cast<std::int16_t>(b);
      append_utf8(spelling[b], c);
    }
  }
};

const ByteTable& byte_table() {
  static const ByteTable table;
  return table;
}

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return true;
    default:
      // Rust's standard library is of Unicode 17 already, which has two more ranges of digits.
      return is_recent(c, "N", "") || (c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6);
  }
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default:
      // The symbols with the property Alphabetic, and the join controls.
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D || is_recent(c, "LM", "Nd Nl Pc");
  }
}

bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return true;
    default: return is_recent(c, "L", "");
  }
}

void append_lowercase(std::string& out, char32_t c) {
  if (c < 0x80) {
    append_utf8(out, c >= 'A' && c <= 'Z' ? c + 32 : c);
    return;
  }
  if (c == 0x130) {  // the one character whose lower case is two
    out.append("i\xCC\x87");
    return;
  }
  // Unicode 16 and 17, which utf8proc may not know.
  static constexpr std::array<std::array<char32_t, 2>, 8> kPairs{{{0x1C89, 0x1C8A},
                                                                  {0xA7CB, 0x0264},
                                                                  {0xA7CC, 0xA7CD},
                                                                  {0xA7CE, 0xA7CF},
                                                                  {0xA7D2, 0xA7D3},
                                                                  {0xA7D4, 0xA7D5},
                                                                  {0xA7DA, 0xA7DB},
                                                                  {0xA7DC, 0x019B}}};
  for (const auto& [upper, lower] : kPairs) {
    if (c == upper) return append_utf8(out, lower);
  }
  if (c >= 0x10D50 && c <= 0x10D65) return append_utf8(out, c + 0x20);
  if (c >= 0x16EA0 && c <= 0x16EB8) return append_utf8(out, c + 0x1B);
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

bool is_unknown_to_normal_forms(char32_t c) {
  if (c < kAfterUnicode9[0].first) return false;
  const auto* next = std::upper_bound(std::begin(kAfterUnicode9), std::end(kAfterUnicode9), c,
                                      [](char32_t value, const Range& range) { return value < range.first; });
  return next != std::begin(kAfterUnicode9) && c <= (next - 1)->last;
}

std::span<const RecentRange> recent_ranges() { return kRecent; }

std::string_view byte_spelling(std::uint8_t byte) { return byte_table().spelling[byte]; }

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  const ByteTable& table = byte_table();
  std::string out;
  const auto size = static_cast<std::int64_t>(spelling.size());
  for (std::int64_t i = 0; i < size;) {
    const CodePoint point = code_point_at(spelling, i);
    if (point.value >= table.byte.size() || table.byte[point.value] < 0) return std::nullopt;
    out.push_back(static_cast<char>(table.byte[point.value]));
    i += point.num_bytes;
  }
  return out;
}

}  // namespace quiver::text
