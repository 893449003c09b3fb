// Just enough SVG for the report's charts. Colours and fonts come from the page's style sheet, by
// class, so that a chart follows the reader's dark or light mode.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::report {

/// Steps of the sequential palette: classes q0 (least) to q15 (most).
inline constexpr int kPaletteSteps = 16;

/// The step of `share` in [0, 1]; what lies outside is clamped, NaN gives 0.
int palette_step(double share);

/// Maps values of [low, high] to pixels of [from, to].
struct Scale {
  double low = 0, high = 1;
  double from = 0, to = 1;

  double operator()(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

/// About `count` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]. Empty unless low < high.
std::vector<double> round_ticks(double low, double high, int count);
/// Decimals that tell ticks apart which are `step` apart.
int tick_decimals(const std::vector<double>& ticks);

enum class Anchor { kStart, kMiddle, kEnd };

/// An SVG picture under construction. Text and titles are escaped here; classes are the caller's own words.
class Svg {
 public:
  /// `description` is read to those who cannot see the picture.
  Svg(double width, double height, std::string_view css_class, std::string_view description);

  void rect(double x, double y, double width, double height, std::string_view css_class, std::string_view title = "");
  void line(double x1, double y1, double x2, double y2, std::string_view css_class);
  void circle(double x, double y, double radius, std::string_view css_class, std::string_view title = "");
  void text(double x, double y, std::string_view content, std::string_view css_class, Anchor anchor = Anchor::kStart,
            std::string_view title = "");
  /// Text that reads upwards from (x, y).
  void upward_text(double x, double y, std::string_view content, std::string_view css_class);
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view css_class, std::string_view title = "");
  /// A path of M, h, v, z commands and the like.
  void path(std::string_view commands, std::string_view css_class);
  /// An id and further attributes of the <svg> element, for a script to find it by.
  void attribute(std::string_view name, std::string_view value);

  std::string str() const;

 private:
  void close(std::string_view name, std::string_view title);

  double width_, height_;
  std::string head_;
  std::string body_;
};

/// A coordinate with at most two decimals and no trailing zeros.
std::string coordinate(double value);

}  // namespace quiver::report
