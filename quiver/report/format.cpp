#include "quiver/report/format.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::report {
namespace {

constexpr std::string_view kMinus = "\xE2\x88\x92";
constexpr std::string_view kDash = "\xE2\x80\x93";
constexpr std::string_view kEllipsis = "\xE2\x80\xA6";
constexpr char32_t kReplacement = 0xFFFD;

struct Range {
  char32_t first, last;
};

// The blocks that terminals draw two columns wide. Blocks, not single characters: enough to align a table.
constexpr std::array<Range, 12> kWide = {{{0x1100, 0x115F},
                                          {0x2E80, 0x303E},
                                          {0x3041, 0x33FF},
                                          {0x3400, 0x4DBF},
                                          {0x4E00, 0x9FFF},
                                          {0xA000, 0xA4CF},
                                          {0xAC00, 0xD7A3},
                                          {0xF900, 0xFAFF},
                                          {0xFE30, 0xFE6F},
                                          {0xFF00, 0xFF60},
                                          {0x1F300, 0x1FAFF},
                                          {0x20000, 0x3FFFD}}};
constexpr std::array<Range, 7> kNoWidth = {
    {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x064B, 0x065F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}}};

template <std::size_t N>
bool contains(const std::array<Range, N>& ranges, char32_t c) {
  for (const auto& range : ranges) {
    if (c >= range.first && c <= range.last) return true;
  }
  return false;
}

std::int64_t width_of(char32_t c) { return contains(kNoWidth, c) ? 0 : contains(kWide, c) ? 2 : 1; }

// Controls, and the marks that reorder a line (a name could disguise another).
bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069); }

}  // namespace

std::string number_text(double value, int decimals) {
  if (!std::isfinite(value)) return std::string(kDash);
  auto text = format("{:.{}f}", std::abs(value), decimals);
  const bool is_zero = text.find_first_not_of("0.") == std::string::npos;
  return value < 0 && !is_zero ? std::string(kMinus) + text : text;
}

std::string signed_text(double value, int decimals) {
  const auto text = number_text(value, decimals);
  return value > 0 ? "+" + text : text;
}

std::string percent_text(double share, int decimals) {
  return std::isfinite(share) ? number_text(share * 100, decimals) + " %" : std::string(kDash);
}

std::string count_text(std::int64_t count) {
  auto digits = std::to_string(count);
  const std::size_t first = count < 0 ? 1 : 0;
  for (auto i = static_cast<std::int64_t>(digits.size()) - 3; i > static_cast<std::int64_t>(first); i -= 3) {
    digits.insert(static_cast<std::size_t>(i), 1, ',');
  }
  return digits;
}

std::string amount_text(double amount) {
  if (!std::isfinite(amount)) return std::string(kDash);
  constexpr std::array<const char*, 5> kUnits = {"", " k", " M", " G", " T"};
  std::size_t unit = 0;
  while (std::abs(amount) >= 999.5 && unit + 1 < kUnits.size()) {
    amount /= 1000;
    ++unit;
  }
  const bool whole = unit == 0 && amount == std::floor(amount);
  return number_text(amount, whole || std::abs(amount) >= 99.95 ? 0 : 1) + kUnits[unit];
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return std::string(kDash);
  if (seconds < 59.95) return number_text(seconds, 1) + " s";
  const double minutes = std::floor(seconds / 60);
  if (minutes < 60) return format("{:.0f} min {:.0f} s", minutes, std::floor(seconds - minutes * 60));
  const double hours = std::floor(minutes / 60);
  return format("{:.0f} h {:.0f} min", hours, minutes - hours * 60);
}

int decimals_for(double largest) {
  if (std::abs(largest) < 10) return 3;
  return std::abs(largest) < 100 ? 2 : 1;
}

std::vector<char32_t> code_points_of(std::string_view text) {
  const auto valid = replace_invalid_utf8(text);
  std::vector<char32_t> points;
  points.reserve(valid.size());
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(valid.size());) {
    const auto point = code_point_at(valid, i);
    points.push_back(point.value);
    i += point.num_bytes;
  }
  return points;
}

std::int64_t display_width(std::string_view text) {
  std::int64_t width = 0;
  for (const auto c : code_points_of(text)) width += width_of(c);
  return width;
}

std::string printable(std::string_view text) {
  std::string result;
  for (const char32_t c : code_points_of(text)) {
    if (c == '\t' || c == '\n' || c == '\r') {
      result += ' ';
    } else {
      append_utf8(result, is_control(c) ? kReplacement : c);
    }
  }
  return result;
}

std::string shorten(std::string_view text, std::int64_t width) {
  if (display_width(text) <= width) return std::string(text);
  const auto points = code_points_of(text);
  const std::int64_t tail_width = (width - 1) * 2 / 5;
  std::size_t tail = points.size();
  for (std::int64_t used = 0; tail > 0; --tail) {
    used += width_of(points[tail - 1]);
    if (used > tail_width) break;
  }
  std::string result;
  std::int64_t room = width - 1 - tail_width;
  for (std::size_t head = 0; head < tail; ++head) {
    room -= width_of(points[head]);
    if (room < 0) break;
    append_utf8(result, points[head]);
  }
  result += kEllipsis;
  for (; tail < points.size(); ++tail) append_utf8(result, points[tail]);
  return result;
}

std::string escape(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char32_t c : code_points_of(text)) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      case '\t':
      case '\n':
      case '\r': result += static_cast<char>(c); break;
      default: append_utf8(result, is_control(c) ? kReplacement : c);
    }
  }
  return result;
}

std::int64_t packed_share(double share) { return std::isnan(share) ? 0 : std::lround(std::clamp(share, 0.0, 1.0) * 4095); }

void append_share(std::string& text, double share) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const auto value = static_cast<std::size_t>(packed_share(share));
  text += kLetters[value / 64];
  text += kLetters[value % 64];
}

std::string script_json(const nlohmann::json& value) {
  const auto text = value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '<': result += "\\u003c"; break;
      case '>': result += "\\u003e"; break;
      case '&': result += "\\u0026"; break;
      default: result += c;
    }
  }
  return result;
}

}  // namespace quiver::report
