#include "quiver/base/utf8.h"

#include <algorithm>

namespace quiver {
namespace {

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

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::int64_t count_code_points(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
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

}  // namespace quiver
