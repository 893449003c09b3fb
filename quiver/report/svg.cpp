#include "quiver/report/svg.h"

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/format.h"

namespace quiver::report {

int palette_step(double share) {
  if (std::isnan(share)) return 0;
  return std::clamp(static_cast<int>(std::clamp(share, 0.0, 1.0) * kPaletteSteps), 0, kPaletteSteps - 1);
}

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(low < high) || !std::isfinite(high - low)) return {};
  const double raw = (high - low) / std::max(count, 1);
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double ratio = raw / power;
  const double step = power * (ratio <= 1.5 ? 1 : ratio <= 3.5 ? 2 : ratio <= 7.5 ? 5 : 10);
  std::vector<double> ticks;
  // Multiples of the step, not a running sum, so that zero is zero.
  const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-9);
  for (int i = 0; first + i <= last && i < 100; ++i) ticks.push_back((first + i) * step);
  return ticks;
}

int tick_decimals(const std::vector<double>& ticks) {
  if (ticks.size() < 2 || !(ticks[1] > ticks[0])) return 2;  // equal where the step is lost in rounding
  return std::clamp(static_cast<int>(std::ceil(-std::log10(ticks[1] - ticks[0]) - 1e-9)), 0, 6);
}

std::string coordinate(double value) {
  auto text = format("{:.2f}", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

Svg::Svg(double width, double height, std::string_view css_class, std::string_view description) : width_(width), height_(height) {
  head_ = format(" class=\"{}\" role=\"img\" aria-label=\"{}\"", css_class, escape(description));
}

void Svg::close(std::string_view name, std::string_view title) {
  body_ += title.empty() ? "/>" : format("><title>{}</title></{}>", escape(title), name);
}

void Svg::rect(double x, double y, double width, double height, std::string_view css_class, std::string_view title) {
  body_ += format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", css_class, coordinate(x), coordinate(y),
                  coordinate(width), coordinate(height));
  close("rect", title);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view css_class) {
  body_ += format("<line class=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>", css_class, coordinate(x1), coordinate(y1), coordinate(x2),
                  coordinate(y2));
}

void Svg::circle(double x, double y, double radius, std::string_view css_class, std::string_view title) {
  body_ += format("<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"{}\"", css_class, coordinate(x), coordinate(y), coordinate(radius));
  close("circle", title);
}

void Svg::text(double x, double y, std::string_view content, std::string_view css_class, Anchor anchor, std::string_view title) {
  constexpr const char* kAnchors[] = {"start", "middle", "end"};
  body_ += format("<text class=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\">", css_class, coordinate(x), coordinate(y),
                  kAnchors[static_cast<int>(anchor)]);
  if (!title.empty()) body_ += "<title>" + escape(title) + "</title>";
  body_ += escape(content) + "</text>";
}

void Svg::upward_text(double x, double y, std::string_view content, std::string_view css_class) {
  body_ += format("<text class=\"{}\" transform=\"translate({} {}) rotate(-90)\">{}</text>", css_class, coordinate(x), coordinate(y),
                  escape(content));
}

void Svg::polyline(const std::vector<std::pair<double, double>>& points, std::string_view css_class, std::string_view title) {
  body_ += format("<polyline class=\"{}\" points=\"", css_class);
  for (const auto& [x, y] : points) body_ += coordinate(x) + "," + coordinate(y) + " ";
  if (!points.empty()) body_.pop_back();
  body_ += '"';
  close("polyline", title);
}

void Svg::path(std::string_view commands, std::string_view css_class) {
  body_ += format("<path class=\"{}\" d=\"{}\"/>", css_class, commands);
}

void Svg::attribute(std::string_view name, std::string_view value) { head_ += format(" {}=\"{}\"", name, escape(value)); }

std::string Svg::str() const {
  const auto width = coordinate(width_), height = coordinate(height_);
  return format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\"", width, height, width,
                height) +
         head_ + ">" + body_ + "</svg>";
}

}  // namespace quiver::report
