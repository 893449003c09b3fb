#include "quiver/report/page.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/report/assets.h"
#include "quiver/report/format.h"
#include "quiver/report/svg.h"

namespace quiver::report {
namespace {

using Colour = std::array<double, 3>;

// Lightness rises or falls evenly from end to end, so that the steps are told apart with any colour
// vision, and in print. The lowest step is near the page's background.
constexpr std::array<Colour, 5> kLightPalette = {{{240, 244, 249}, {190, 212, 236}, {110, 165, 214}, {38, 107, 172}, {9, 44, 92}}};
constexpr std::array<Colour, 5> kDarkPalette = {{{30, 37, 48}, {33, 72, 112}, {43, 125, 160}, {112, 188, 178}, {240, 243, 190}}};

std::string colour_at(const std::array<Colour, 5>& anchors, double share) {
  const double place = share * (static_cast<double>(anchors.size()) - 1);
  const auto left = std::min(static_cast<std::size_t>(place), anchors.size() - 2);
  const double weight = place - static_cast<double>(left);
  std::array<std::int64_t, 3> rgb{};
  for (std::size_t c = 0; c < 3; ++c) {
    rgb[c] = std::lround(anchors[left][c] * (1 - weight) + anchors[left + 1][c] * weight);
  }
  return format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

std::string palette(const std::array<Colour, 5>& anchors) {
  std::string css;
  for (int step = 0; step < kPaletteSteps; ++step) {
    css += format(".q{}{{fill:{}}}", step, colour_at(anchors, static_cast<double>(step) / (kPaletteSteps - 1)));
  }
  return css;
}

std::string base64_of_hex(std::string_view hex) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto digit = [&](std::size_t i) -> unsigned {
    return i >= hex.size() ? 0u : static_cast<unsigned>(hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10);
  };
  std::string text;
  // Three hexadecimal digits are two letters.
  for (std::size_t i = 0; i < hex.size(); i += 3) {
    const unsigned bits = digit(i) << 8 | digit(i + 1) << 4 | digit(i + 2);
    text += kLetters[bits >> 6];
    if (i + 1 < hex.size()) text += kLetters[bits & 63];
  }
  while (text.size() % 4 != 0) text += '=';
  return text;
}

/// CSS, with the palette classes q0 ... q15 in a light and a dark version.
std::string page_style() {
  return std::string(kStyleCss) + palette(kLightPalette) + "\n@media screen and (prefers-color-scheme:dark){" + std::string(kStyleDarkCss) +
         palette(kDarkPalette) + "}" + std::string(kStylePrintCss);
}

}  // namespace

std::string html_page(const std::string& title, std::string_view style, const std::string& body, const std::string& data,
                      std::string_view script) {
  const auto name = escape(title), policy = base64_of_hex(sha256_hex(script));
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" "
         "content=\"default-src "
         "'none'; style-src 'unsafe-inline'; script-src 'sha256-" +
         policy +
         "'\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light "
         "dark\"><title>" +
         name + "</title><style>" + page_style() + std::string(style) + "</style></head><body><main><h1>" + name + "</h1>" + body +
         "<footer>Made by Quiver. This page holds everything it shows; it loads nothing.</footer></main>" + data + "<script>" +
         std::string(script) + "</script></body></html>\n";
}

}  // namespace quiver::report
