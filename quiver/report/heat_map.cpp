// Heat maps: heat_map of charts.h.
#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/charts.h"
#include "quiver/report/format.h"
#include "quiver/report/svg.h"

namespace quiver::report {
namespace {

constexpr double kGroupGutter = 26;
constexpr double kSmallestLabelledCell = 7;

struct Layout {
  double cell_width, cell_height;
  double left, top;
  bool row_names, column_names;
  double width, height;
  double legend_y;

  double x(std::int64_t column) const { return left + static_cast<double>(column) * cell_width; }
  double y(std::int64_t row) const { return top + static_cast<double>(row) * cell_height; }
};

double gutter(const std::vector<std::string>& names, double font) {
  std::int64_t widest = 0;
  for (const auto& name : names) widest = std::max(widest, std::min<std::int64_t>(display_width(name), 34));
  return static_cast<double>(widest) * font * 0.63 + 12;
}

Layout layout_of(const HeatMap& map) {
  const auto rows = static_cast<double>(map.rows.size()), columns = static_cast<double>(map.columns.size());
  Layout layout{};
  layout.cell_width = std::clamp(std::floor(820 / columns), 3.0, columns <= 16 ? 44.0 : 20.0);
  layout.cell_height = std::clamp(std::floor(1000 / rows), 3.0, 16.0);
  // Square cells read as a matrix, unless there are so few columns that the map would be a thin strip.
  if (columns > 16) layout.cell_width = layout.cell_height = std::max(3.0, std::min(layout.cell_width, 16.0));
  layout.row_names = layout.cell_height >= kSmallestLabelledCell;
  layout.column_names = layout.cell_width >= kSmallestLabelledCell;
  const double font = std::min(10.5, layout.cell_height);
  layout.left = (layout.row_names ? gutter(map.rows, font) : 8) + (map.row_groups.empty() ? 0 : kGroupGutter);
  layout.top =
      (layout.column_names ? gutter(map.columns, std::min(10.5, layout.cell_width)) : 8) + (map.column_groups.empty() ? 0 : kGroupGutter);
  layout.legend_y = layout.y(static_cast<std::int64_t>(map.rows.size())) + 14;
  layout.width = std::max(layout.left + columns * layout.cell_width + 14, 330.0);
  layout.height = layout.legend_y + 44;
  return layout;
}

double share_of(const HeatMap& map, double value) {
  const double share = map.high > map.low ? (value - map.low) / (map.high - map.low) : 0;
  return map.square_root ? std::sqrt(std::max(share, 0.0)) : share;
}

std::string value_text(const HeatMap& map, double value) { return map.values_are_shares ? percent_text(value, 1) : number_text(value, 3); }

/// One path per colour, with neighbours joined: a hundredth of the size of one rect per cell.
void draw_cells_by_colour(Svg& svg, const HeatMap& map, const Layout& layout) {
  std::array<std::string, kPaletteSteps> paths;
  const auto columns = static_cast<std::int64_t>(map.columns.size());
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    const auto step_at = [&](std::int64_t column) {
      const double value = map.values[row * map.columns.size() + static_cast<std::size_t>(column)];
      return std::isnan(value) ? -1 : palette_step(share_of(map, value));
    };
    for (std::int64_t column = 0; column < columns;) {
      const int step = step_at(column);
      std::int64_t end = column + 1;
      while (end < columns && step_at(end) == step) ++end;
      if (step >= 0) {
        paths[static_cast<std::size_t>(step)] +=
            format("M{} {}h{}v{}h-{}z", coordinate(layout.x(column)), coordinate(layout.y(static_cast<std::int64_t>(row))),
                   coordinate(static_cast<double>(end - column) * layout.cell_width), coordinate(layout.cell_height),
                   coordinate(static_cast<double>(end - column) * layout.cell_width));
      }
      column = end;
    }
  }
  for (int step = 0; step < kPaletteSteps; ++step) {
    const auto& path = paths[static_cast<std::size_t>(step)];
    if (!path.empty()) svg.path(path, format("cell q{}", step));
  }
  for (std::size_t row = 0; row < map.row_titles.size(); ++row) {
    svg.rect(0, layout.y(static_cast<std::int64_t>(row)), layout.width, layout.cell_height, "hover", map.row_titles[row]);
  }
}

void draw_cells(Svg& svg, const HeatMap& map, const Layout& layout) {
  const auto cells = static_cast<std::int64_t>(map.values.size());
  if (map.id.empty() && cells > kMostCellsWithTitle) return draw_cells_by_colour(svg, map, layout);
  for (std::size_t i = 0; i < map.values.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i / map.columns.size());
    const auto column = static_cast<std::int64_t>(i % map.columns.size());
    const double value = map.values[i];
    if (std::isnan(value) && map.id.empty()) continue;
    // A map that a script recolours gets its titles from the script, when they are asked for.
    const auto title =
        map.id.empty() ? format("{}, {}: {}", map.rows[i / map.columns.size()], map.columns[i % map.columns.size()], value_text(map, value))
                       : std::string();
    svg.rect(layout.x(column), layout.y(row), layout.cell_width, layout.cell_height, format("cell q{}", palette_step(share_of(map, value))),
             title);
  }
}

void draw_names(Svg& svg, const HeatMap& map, const Layout& layout) {
  const auto size = [](double cell) { return cell >= 11 ? "name" : cell >= 9 ? "name n8" : "name n7"; };
  const double rows_right = layout.left - 5 - (map.row_groups.empty() ? 0 : kGroupGutter);
  const double columns_bottom = layout.top - 5 - (map.column_groups.empty() ? 0 : kGroupGutter);
  for (std::size_t i = 0; layout.row_names && i < map.rows.size(); ++i) {
    const double y = layout.top + (static_cast<double>(i) + 0.5) * layout.cell_height;
    svg.text(rows_right, y + std::min(layout.cell_height, 10.5) * 0.33, shorten(map.rows[i], 34), size(layout.cell_height), Anchor::kEnd,
             map.rows[i]);
  }
  for (std::size_t i = 0; layout.column_names && i < map.columns.size(); ++i) {
    const double x = layout.left + (static_cast<double>(i) + 0.5) * layout.cell_width;
    svg.upward_text(x + std::min(layout.cell_width, 10.5) * 0.33, columns_bottom, shorten(map.columns[i], 34), size(layout.cell_width));
  }
}

void draw_groups(Svg& svg, const HeatMap& map, const Layout& layout) {
  const auto rows = static_cast<std::int64_t>(map.rows.size()), columns = static_cast<std::int64_t>(map.columns.size());
  const double right = layout.x(columns), bottom = layout.y(rows);
  for (const auto row : map.row_breaks) {
    const double y = layout.y(row);
    svg.line(layout.left - 4, y, right, y, "break");
  }
  for (const auto column : map.column_breaks) {
    const double x = layout.x(column);
    svg.line(x, layout.top - 4, x, bottom, "break");
  }
  const auto middles = [](const auto& groups, std::int64_t end, double origin, double cell, auto draw) {
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const auto stop = i + 1 < groups.size() ? groups[i + 1].first : end;
      const double size = static_cast<double>(stop - groups[i].first) * cell;
      if (size >= 10) draw(origin + static_cast<double>(groups[i].first) * cell + size / 2, groups[i].second);
    }
  };
  middles(map.row_groups, rows, layout.top, layout.cell_height,
          [&](double y, const std::string& name) { svg.text(layout.left - 8, y + 4, shorten(name, 4), "group", Anchor::kEnd, name); });
  middles(map.column_groups, columns, layout.left, layout.cell_width,
          [&](double x, const std::string& name) { svg.text(x, layout.top - 8, shorten(name, 4), "group", Anchor::kMiddle, name); });
  for (const auto& [row, column] : map.marked) {
    svg.rect(layout.x(column), layout.y(row), layout.cell_width, layout.cell_height, "own");
  }
  if (map.marked_column >= 0 || !map.id.empty()) {
    const auto column = std::max<std::int64_t>(map.marked_column, 0);
    svg.rect(layout.x(column), layout.top - 3, layout.cell_width, bottom - layout.top + 6,
             map.marked_column >= 0 ? "own column" : "own column hidden");
  }
}

void draw_legend(Svg& svg, const HeatMap& map, const Layout& layout) {
  constexpr double kStep = 12;
  const double left = layout.left;
  for (int step = 0; step < kPaletteSteps; ++step) {
    svg.rect(left + step * kStep, layout.legend_y, kStep, 9, format("cell q{}", step));
  }
  for (const double place : {0.0, 0.5, 1.0}) {
    const double share = map.square_root ? place * place : place;
    const auto anchor = place == 0 ? Anchor::kStart : place == 1 ? Anchor::kEnd : Anchor::kMiddle;
    svg.text(left + place * kStep * kPaletteSteps, layout.legend_y + 22,
             map.values_are_shares ? percent_text(map.low + share * (map.high - map.low), 1)
                                   : number_text(map.low + share * (map.high - map.low), 2),
             "tick", anchor);
  }
}

}  // namespace

std::string heat_map(const HeatMap& map) {
  const auto layout = layout_of(map);
  Svg svg(layout.width, layout.height, "heat", map.description);
  if (!map.id.empty()) svg.attribute("id", map.id);
  draw_cells(svg, map, layout);
  draw_names(svg, map, layout);
  draw_groups(svg, map, layout);
  draw_legend(svg, map, layout);
  return svg.str();
}

}  // namespace quiver::report
