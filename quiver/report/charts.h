// The charts of a report, each one SVG picture.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "quiver/report/view.h"

namespace quiver::report {

/// Every method's paired difference to the base model in one metric of one section: a dot and its
/// 95 % interval. Empty if no method has a difference.
std::string difference_chart(const Results& results, const std::string& section, const std::string& metric);

/// The loss curves, smoothed, of one kind of adapter: every curve labelled if they are few;
/// otherwise the median, the lowest and the highest. Empty if no curve has two points.
std::string curve_chart(const std::vector<const Curve*>& curves, const std::string& kind);

/// The exponential moving average with its start corrected (Kingma and Ba 2015, section 3), over
/// about `window` values; values that are missing (NaN) are passed over.
std::vector<std::pair<double, double>> smoothed(const Curve& curve, double window);

/// A matrix as coloured cells.
struct HeatMap {
  std::string description;
  std::vector<std::string> rows, columns;  ///< names
  std::vector<double> values;              ///< rows x columns, row by row; NaN draws no cell
  double low = 0, high = 1;                ///< the values of the palette's ends
  bool square_root = false;                ///< colours follow the square root: many small values, few large
  std::vector<std::int64_t> row_breaks;    ///< a line before these rows
  std::vector<std::int64_t> column_breaks;
  std::vector<std::pair<std::int64_t, std::string>> row_groups;     ///< first row and name of each group of rows
  std::vector<std::pair<std::int64_t, std::string>> column_groups;  ///< the same of columns
  std::vector<std::pair<std::int64_t, std::int64_t>> marked;        ///< cells with a frame
  std::int64_t marked_column = -1;                                  ///< a column with a frame, or -1
  std::vector<std::string> row_titles;  ///< tooltips of rows, for maps too large to have one per cell; may be empty
  std::string id;                       ///< if not empty, a script finds and recolours the cells: one rect per cell
  bool values_are_shares = false;       ///< write them as per cent
};

/// Above this many cells a map has a tooltip per row, not per cell: the page would grow by megabytes.
inline constexpr std::int64_t kMostCellsWithTitle = 2500;

std::string heat_map(const HeatMap& map);

}  // namespace quiver::report
