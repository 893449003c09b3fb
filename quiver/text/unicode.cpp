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

std::uint8_t byte_at(std::string_view text, std::int64_t offset) {
  return static_cast<std::uint8_t>(text[static_cast<std::size_t>(offset)]);
}

/// A well-formed character, the part of one that the text ends with, or ill-formed bytes.
struct Scanned {
  enum Kind { kCharacter, kTruncated, kInvalid } kind;
  std::int64_t num_bytes;
};

/// Well-formed sequences by their first byte (Unicode 14, table 3-7): length, and the range of the second byte.
Scanned scan_character(std::string_view text, std::int64_t offset) {
  const std::uint8_t lead = byte_at(text, offset);
  if (lead < 0x80) return {Scanned::kCharacter, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Scanned::kInvalid, 1};
  const std::int64_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  const auto size = static_cast<std::int64_t>(text.size());
  for (std::int64_t i = 1; i < length; ++i) {
    if (offset + i >= size) return {Scanned::kTruncated, i};
    const std::uint8_t next = byte_at(text, offset + i);
    if (next < low || next > high) return {Scanned::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Scanned::kCharacter, length};
}

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

CodePoint code_point_at(std::string_view text, std::int64_t offset) {
  const std::uint8_t lead = byte_at(text, offset);
  const auto tail = [&](std::int64_t i) { return static_cast<char32_t>(byte_at(text, offset + i) & 0x3F); };
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {static_cast<char32_t>(lead & 0x1F) << 6 | tail(1), 2};
  if (lead < 0xF0) return {static_cast<char32_t>(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  return {static_cast<char32_t>(lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

CodePoint code_point_before(std::string_view text, std::int64_t offset) {
  std::int64_t start = offset - 1;
  while ((byte_at(text, start) & 0xC0) == 0x80) --start;
  return code_point_at(text, start);
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto add = [&](char32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (code_point < 0x80) {
    add(code_point);
  } else if (code_point < 0x800) {
    add(0xC0 | code_point >> 6);
    add(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    add(0xE0 | code_point >> 12);
    add(0x80 | (code_point >> 6 & 0x3F));
    add(0x80 | (code_point & 0x3F));
  } else {
    add(0xF0 | code_point >> 18);
    add(0x80 | (code_point >> 12 & 0x3F));
    add(0x80 | (code_point >> 6 & 0x3F));
    add(0x80 | (code_point & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  const auto size = static_cast<std::int64_t>(text.size());
  for (std::int64_t i = 0; i < size;) {
    const Scanned scanned = scan_character(text, i);
    if (scanned.kind != Scanned::kCharacter) return false;
    i += scanned.num_bytes;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  const auto size = static_cast<std::int64_t>(bytes.size());
  for (std::int64_t i = 0; i < size;) {
    const Scanned scanned = scan_character(bytes, i);
    if (scanned.kind == Scanned::kCharacter) {
      out.append(bytes.substr(static_cast<std::size_t>(i), static_cast<std::size_t>(scanned.num_bytes)));
    } else {
      out.append("\xEF\xBF\xBD");
    }
    i += scanned.num_bytes;
  }
  return out;
}

std::int64_t incomplete_tail(std::string_view bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  for (std::int64_t start = std::max<std::int64_t>(0, size - 3); start < size; ++start) {
    if ((byte_at(bytes, start) & 0xC0) == 0x80) continue;  // not the start of a character
    const Scanned scanned = scan_character(bytes, start);
    if (scanned.kind == Scanned::kTruncated) return size - start;
  }
  return 0;
}

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
