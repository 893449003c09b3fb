#include "quiver/report/charts.h"

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/format.h"
#include "quiver/report/svg.h"

namespace quiver::report {
namespace {

constexpr double kChartWidth = 400;
constexpr std::size_t kMostLabelledCurves = 12;
constexpr std::size_t kMostPoints = 150;

struct Bar {
  const Method* method;
  const SummaryRow* row;
};

std::string difference_title(const Method& method, const Metric& metric, const SummaryRow& row) {
  const auto& difference = *difference_of(row);
  return format("{}: {} {} against the base model, 95 % interval {} to {} (n = {})", method.label, signed_text(difference.mean, 4),
                metric.label, signed_text(difference.low, 4), signed_text(difference.high, 4), row.count);
}

using Points = std::vector<std::pair<double, double>>;

/// The line's value at x, NaN outside of it.
double value_at(const Points& line, double x) {
  if (line.empty() || x < line.front().first || x > line.back().first) return std::nan("");
  const auto right = std::ranges::lower_bound(line, x, {}, &std::pair<double, double>::first);
  if (right == line.begin() || right->first == x) return right->second;
  const auto left = std::prev(right);
  const double share = (x - left->first) / (right->first - left->first);
  return left->second + share * (right->second - left->second);
}

Points median_line(const std::vector<Points>& lines, double low, double high) {
  Points median;
  constexpr int kSteps = 100;
  for (int i = 0; i <= kSteps; ++i) {
    const double x = low + (high - low) * i / kSteps;
    std::vector<double> values;
    for (const auto& line : lines) {
      if (const double y = value_at(line, x); !std::isnan(y)) values.push_back(y);
    }
    // Where few curves go on, their median is another population's.
    if (values.size() * 2 < lines.size() || values.empty()) continue;
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::ranges::nth_element(values, middle);
    median.emplace_back(x, *middle);
  }
  return median;
}

struct EndLabel {
  double x, y;    ///< the end of the curve
  double text_y;  ///< where its label stands, after those too close moved apart
  std::string text;
  std::string css_class;
};

/// Moves labels apart that would overlap, inside [top, bottom], keeping their order.
void spread(std::vector<EndLabel>& labels, double top, double bottom) {
  constexpr double kLineHeight = 12;
  std::ranges::stable_sort(labels, {}, &EndLabel::y);
  double free = top;
  for (auto& label : labels) {
    label.text_y = std::max(label.y, free);
    free = label.text_y + kLineHeight;
  }
  free = bottom;
  for (auto label = labels.rbegin(); label != labels.rend(); ++label) {
    label->text_y = std::min(label->text_y, free);
    free = label->text_y - kLineHeight;
  }
}

/// Its left, right, bottom and top are those of the scales.
struct Frame {
  Scale x, y;
};

void draw_axes(Svg& svg, const Frame& frame, const char* x_label) {
  const auto y_ticks = round_ticks(frame.y.low, frame.y.high, 5);
  for (const double tick : y_ticks) {
    svg.line(frame.x.from, frame.y(tick), frame.x.to, frame.y(tick), "grid");
    svg.text(frame.x.from - 6, frame.y(tick) + 4, number_text(tick, tick_decimals(y_ticks)), "tick", Anchor::kEnd);
  }
  const auto x_ticks = round_ticks(frame.x.low, frame.x.high, 4);
  for (const double tick : x_ticks) {
    svg.text(frame.x(tick), frame.y.from + 16, number_text(tick, tick_decimals(x_ticks)), "tick", Anchor::kMiddle);
  }
  svg.line(frame.x.from, frame.y.from, frame.x.to, frame.y.from, "axis");
  svg.text(frame.x.to, frame.y.from + 31, x_label, "tick", Anchor::kEnd);
}

}  // namespace

std::string difference_chart(const Results& results, const std::string& section, const std::string& metric_name) {
  const auto& metric = results.metric(metric_name);
  std::vector<Bar> bars;
  double low = 0, high = 0;
  for (const auto& method : results.methods) {
    const auto* row = results.find_summary(section, method.name, metric_name);
    if (row == nullptr || !difference_of(*row) || std::isnan(difference_of(*row)->mean)) continue;
    bars.push_back({&method, row});
    for (const double v : {difference_of(*row)->low, difference_of(*row)->mean, difference_of(*row)->high}) {
      if (!std::isnan(v)) low = std::min(low, v), high = std::max(high, v);
    }
  }
  if (bars.empty()) return "";
  const double pad = high > low ? (high - low) * 0.06 : 1;
  constexpr double kLeft = 138, kTop = 44, kRow = 24;
  const double bottom = kTop + kRow * static_cast<double>(bars.size());
  const Scale x{.low = low - pad, .high = high + pad, .from = kLeft, .to = kChartWidth - 20};

  Svg svg(kChartWidth, bottom + 30, "chart", format("{}: {}, difference to the base model", section_label(section), metric.label));
  svg.text(0, 14, metric.label, "heading");
  if (metric.better != Better::kUnknown) {
    const bool lower = metric.better == Better::kLower;
    constexpr double kLabelWidth = 58;  // zero may be at the right border
    svg.text(lower ? x(0) - 8 : std::min(x(0) + 8, kChartWidth - kLabelWidth), 34, lower ? "\xE2\x86\x90 better" : "better \xE2\x86\x92",
             "tick", lower ? Anchor::kEnd : Anchor::kStart);
  }
  auto ticks = round_ticks(x.low, x.high, 4);
  if (tick_decimals(ticks) > 2) ticks = round_ticks(x.low, x.high, 2);  // their labels are long
  for (const double tick : ticks) {
    svg.line(x(tick), kTop, x(tick), bottom, tick == 0 ? "zero" : "grid");
    svg.text(x(tick), bottom + 17, signed_text(tick, tick_decimals(ticks)), "tick", Anchor::kMiddle);
  }
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const auto& difference = *difference_of(*bars[i].row);
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    const auto how = verdict(metric, difference);
    const auto title = difference_title(*bars[i].method, metric, *bars[i].row);
    svg.text(kLeft - 10, y + 4, shorten(bars[i].method->label, 20), bars[i].method->is_oracle ? "label oracle" : "label", Anchor::kEnd,
             bars[i].method->label);
    if (!std::isnan(difference.low) && !std::isnan(difference.high)) {
      svg.line(x(difference.low), y, x(difference.high), y, "interval " + how);
      const bool wide = x(difference.high) - x(difference.low) > 12;  // ends that the dot does not hide
      for (const double end : {difference.low, difference.high}) {
        if (wide) svg.line(x(end), y - 4, x(end), y + 4, "interval " + how);
      }
    }
    svg.circle(x(difference.mean), y, 4.5, "dot " + how, title);
    svg.rect(0, y - kRow / 2, kChartWidth, kRow, "hover", title);
  }
  return svg.str();
}

std::vector<std::pair<double, double>> smoothed(const Curve& curve, double window) {
  const double keep = 1 - 1 / std::max(window, 1.0);
  double sum = 0, weight = 0;
  Points points;
  for (std::size_t i = 0; i < curve.loss.size(); ++i) {
    if (std::isnan(curve.loss[i]) || std::isnan(curve.steps[i])) continue;
    sum = keep * sum + (1 - keep) * curve.loss[i];
    weight = keep * weight + (1 - keep);
    points.emplace_back(curve.steps[i], sum / weight);
  }
  std::ranges::stable_sort(points, {}, &std::pair<double, double>::first);
  return points;
}

namespace {

Points thinned(const Points& points) {
  const std::size_t every = points.size() / kMostPoints + 1;
  Points result;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i % every == 0 || i + 1 == points.size()) result.push_back(points[i]);
  }
  return result;
}

struct Line {
  const Curve* curve;
  Points points;
};

std::vector<Line> drawable_lines(const std::vector<const Curve*>& curves) {
  std::vector<Line> lines;
  for (const auto* curve : curves) {
    const double window = std::max(1.0, static_cast<double>(curve->loss.size()) / 15);
    auto points = thinned(smoothed(*curve, window));
    if (points.size() >= 2) lines.push_back({curve, std::move(points)});
  }
  return lines;
}

/// The labels of the curves' ends: all, or those of the lowest, the median (drawn here) and the highest.
std::vector<EndLabel> end_labels(Svg& svg, const std::vector<Line>& lines, const Frame& frame) {
  std::vector<EndLabel> labels;
  const auto add = [&](const Points& points, const std::string& text, const char* css_class) {
    const double x = frame.x(points.back().first), y = frame.y(points.back().second);
    labels.push_back({.x = x, .y = y, .text_y = y, .text = text, .css_class = css_class});
  };
  if (lines.size() <= kMostLabelledCurves) {
    for (const auto& line : lines) add(line.points, line.curve->adapter, "label small");
    return labels;
  }
  const auto end_of = [](const Line& line) { return line.points.back().second; };
  const auto [lowest, highest] = std::ranges::minmax_element(lines, {}, end_of);
  add(lowest->points, lowest->curve->adapter, "label small");
  add(highest->points, highest->curve->adapter, "label small");
  std::vector<Points> all;
  for (const auto& line : lines) all.push_back(line.points);
  const auto median = median_line(all, frame.x.low, frame.x.high);
  if (median.size() >= 2) {
    Points pixels;
    for (const auto& [x, y] : median) pixels.emplace_back(frame.x(x), frame.y(y));
    svg.polyline(pixels, "curve median", "median of the curves");
    add(median, format("median {}", number_text(median.back().second, 2)), "label small strong");
  }
  return labels;
}

}  // namespace

std::string curve_chart(const std::vector<const Curve*>& curves, const std::string& kind) {
  const auto lines = drawable_lines(curves);
  if (lines.empty()) return "";
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  for (const auto& line : lines) {
    for (const auto& [x, y] : line.points) {
      x_low = std::min(x_low, x), x_high = std::max(x_high, x);
      y_low = std::min(y_low, y), y_high = std::max(y_high, y);
    }
  }
  if (y_high == y_low) y_low -= 0.5, y_high += 0.5;
  if (x_high == x_low) x_high += 1;
  const double pad = (y_high - y_low) * 0.04;
  constexpr double kHeight = 270;
  const Frame frame{.x = {x_low, x_high, 42, 292}, .y = {y_low - pad, y_high + pad, kHeight - 40, 34}};

  const auto heading = format("{} ({} {})", kind.empty() ? "adapters" : kind, lines.size(), lines.size() == 1 ? "adapter" : "adapters");
  Svg svg(kChartWidth, kHeight, "chart", "Training loss: " + heading);
  svg.text(0, 14, heading, "heading");
  draw_axes(svg, frame, "optimiser step");
  for (const auto& line : lines) {
    Points pixels;
    for (const auto& [x, y] : line.points) pixels.emplace_back(frame.x(x), frame.y(y));
    const auto title = format("{}: loss {} at step {}, {} at step {} (smoothed)", line.curve->adapter,
                              number_text(line.points.front().second, 3), number_text(line.points.front().first, 0),
                              number_text(line.points.back().second, 3), number_text(line.points.back().first, 0));
    svg.polyline(pixels, lines.size() <= kMostLabelledCurves ? "curve" : "curve many", title);
  }
  auto labels = end_labels(svg, lines, frame);
  spread(labels, frame.y.to + 4, frame.y.from);
  for (const auto& label : labels) {
    svg.line(label.x + 2, label.y, frame.x.to + 10, label.text_y, "leader");
    svg.text(frame.x.to + 13, label.text_y + 4, shorten(label.text, 14), label.css_class, Anchor::kStart, label.text);
  }
  return svg.str();
}

}  // namespace quiver::report
