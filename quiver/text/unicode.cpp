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

/// Categories of utf8proc as bits.
constexpr std::uint32_t bits_of(std::initializer_list<utf8proc_category_t> categories) {
  std::uint32_t bits = 0;
  for (const auto category : categories) bits |= 1U << category;
  return bits;
}
constexpr std::uint32_t kLetters =
    bits_of({UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM, UTF8PROC_CATEGORY_LO});
constexpr std::uint32_t kNumbers = bits_of({UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO});
constexpr std::uint32_t kWords = kLetters | bits_of({UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME, UTF8PROC_CATEGORY_ND,
                                                     UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_PC});
constexpr std::uint32_t kUnprintable = bits_of({UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CF, UTF8PROC_CATEGORY_CS, UTF8PROC_CATEGORY_CO,
                                                UTF8PROC_CATEGORY_CN, UTF8PROC_CATEGORY_ZL, UTF8PROC_CATEGORY_ZP, UTF8PROC_CATEGORY_ZS});

constexpr std::uint32_t kCasedLetters = bits_of({UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT});
constexpr std::uint32_t kCaseIgnorable =
    bits_of({UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME, UTF8PROC_CATEGORY_CF, UTF8PROC_CATEGORY_LM, UTF8PROC_CATEGORY_SK});

bool has_category(char32_t c, std::uint32_t bits) { return (bits >> utf8proc_category(static_cast<utf8proc_int32_t>(c)) & 1U) != 0; }

bool is_recent(char32_t c, std::string_view first_letters, std::string_view categories) {
  if (c < 0x897) return false;  // the first of the table
  for (const RecentRange& range : kRecent) {
    if (c < range.first || c > range.last || range.property.size() != 2) continue;
    if (first_letters.find(range.property[0]) != std::string_view::npos) return true;
    if (categories.find(range.property) != std::string_view::npos) return true;
  }
  return false;
}

bool is_in(std::span<const Range> ranges, char32_t c) {
  return std::ranges::any_of(ranges, [&](const Range& range) { return c >= range.first && c <= range.last; });
}

/// Unicode's Case_Ignorable: marks, formats, modifiers, and punctuation inside words (Word_Break MidLetter, MidNumLet, Single_Quote).
bool is_case_ignorable(char32_t c) {
  static constexpr Range kInsideWords[] = {{'\'', '\''},     {'.', '.'},       {':', ':'},       {0xB7, 0xB7},
                                           {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
                                           {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
                                           {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};
  return is_in(kInsideWords, c) || has_category(c, kCaseIgnorable) || is_recent(c, "", "Mn Me Cf Lm Sk");
}

/// Unicode's Cased, for characters that are not Case_Ignorable.
bool is_cased(char32_t c) {
  // Other_Lowercase and Other_Uppercase: ordinals, Roman numerals, letters in circles and squares.
  static constexpr Range kOthers[] = {{0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},  {0x24B6, 0x24E9},
                                      {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
  return is_in(kOthers, c) || has_category(c, kCasedLetters) || is_recent(c, "", "Lu Ll Lt");
}

/// Whether a capital sigma at text[begin, end) ends a word: Unicode's Final_Sigma (section 3.13, table 3-17), as CPython has it.
bool ends_word(std::string_view text, std::int64_t begin, std::int64_t end) {
  bool is_after_cased = false;
  while (begin > 0) {
    const CodePoint before = code_point_before(text, begin);
    begin -= before.num_bytes;
    if (is_case_ignorable(before.value)) continue;
    is_after_cased = is_cased(before.value);
    break;
  }
  while (is_after_cased && end < std::ssize(text)) {
    const CodePoint after = code_point_at(text, end);
    end += after.num_bytes;
    if (!is_case_ignorable(after.value)) return !is_cased(after.value);
  }
  return is_after_cased;
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

bool is_python_space(char32_t c) { return (c >= 0x1C && c <= 0x1F) || is_white_space(c); }

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  // Rust's standard library is of Unicode 17 already, which has two more ranges of digits.
  return has_category(c, kNumbers) || is_recent(c, "N", "") || (c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6);
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  // The symbols with the property Alphabetic, and the join controls.
  return has_category(c, kWords) || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D || is_recent(c, "LM", "Nd Nl Pc");
}

bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return has_category(c, kLetters) || is_recent(c, "L", "");
}

bool is_printable(char32_t c) { return c == ' ' || !has_category(c, kUnprintable); }

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

std::string lowercase(std::string_view text) {
  constexpr char32_t kCapitalSigma = 0x3A3;
  constexpr char32_t kFinalSigma = 0x3C2;
  std::string out;
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    if (c != kCapitalSigma) return append_lowercase(out, c);
    const auto begin = bytes.data() - text.data();
    ends_word(text, begin, begin + std::ssize(bytes)) ? append_utf8(out, kFinalSigma) : append_lowercase(out, c);
  });
  return out;
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
  bool is_known = true;
  for_each_character(spelling, [&](std::string_view, char32_t c) {
    is_known = is_known && c < table.byte.size() && table.byte[c] >= 0;
    if (is_known) out.push_back(static_cast<char>(table.byte[c]));
  });
  return is_known ? std::optional(out) : std::nullopt;
}

}  // namespace quiver::text
