#include "quiver/report/text_table.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/report/format.h"
#include "quiver/report/text_columns.h"
#include "quiver/report/view.h"

namespace quiver::report {
namespace {

constexpr std::int64_t kNarrowest = 60;
constexpr std::int64_t kWidestMetric = 27;  // of the longest label, "Accuracy, length-normalised"

std::string mean_text(const SummaryRow& row, int decimals) {
  auto text = number_text(row.mean, decimals);
  if (!std::isnan(row.standard_error)) text += " \xC2\xB1 " + number_text(row.standard_error, decimals);
  return text;
}

/// The mean, the difference and, if any method has one, the recovered share.
std::vector<TextColumn> metric_columns(const Results& results, const std::string& section, const std::string& name,
                                       const std::vector<const Method*>& methods) {
  const auto& metric = results.metric(name);
  const auto* best = best_of(results, section, name);
  const int decimals = decimals_of(results, section, name);
  TextColumn mean, difference, recovered;
  mean.cells.push_back(shorten(printable(metric.label), kWidestMetric) + direction(metric) + " ");
  difference.cells.push_back("against base [95 %]  ");
  recovered.cells.push_back("recovers");
  bool any_difference = false, any_recovered = false;
  for (const auto* method : methods) {
    const auto* row = results.find_summary(section, method->name, name);
    if (row == nullptr) {
      mean.cells.push_back("\xE2\x80\x93 ");
      difference.cells.push_back("");
      recovered.cells.push_back("");
      continue;
    }
    mean.cells.push_back(mean_text(*row, decimals) + (row == best ? "*" : " "));
    difference.cells.push_back(difference_text(metric, *row, decimals));
    recovered.cells.push_back(row->recovered ? percent_text(*row->recovered) : "");
    any_difference = any_difference || difference_of(*row).has_value();
    any_recovered = any_recovered || row->recovered;
  }
  std::vector<TextColumn> columns = {mean};
  if (any_difference) columns.push_back(difference);
  if (any_recovered) columns.push_back(recovered);
  return columns;
}

std::string section_text(const Results& results, const std::string& section, std::int64_t width) {
  const auto methods = methods_of(results, section);
  TextColumn labels{.cells = {"method"}};
  for (const auto* method : methods) labels.cells.push_back(printable(method->label));
  std::string text;
  std::vector<TextColumn> pending;
  for (const auto& name : metrics_of(results, section)) {
    auto columns = metric_columns(results, section, name, methods);
    const auto needed = std::min(labels.width(), kWidestLabel) + total_width(pending) + total_width(columns);
    if (!pending.empty() && needed > width) {
      text += draw_columns(labels, pending, width) + "\n";
      pending.clear();
    }
    pending.insert(pending.end(), columns.begin(), columns.end());
  }
  if (!pending.empty()) text += draw_columns(labels, pending, width);
  return text;
}

}  // namespace

std::string render_text_table(const Results& results, int width) {
  if (width < kNarrowest) {
    fail(ErrorKind::kUsage, "a table needs {} columns at least, and {} were asked for", kNarrowest, width);
  }
  std::string text = overview_text(results, width);
  for (const auto& section : sections_of(results)) {
    const auto tasks = count_tasks(results, section);
    text += (text.empty() ? "" : "\n") + shorten(printable(section_label(section)), width - 12);
    if (tasks > 0) text += format(" ({})", tasks);
    text += "\n\n" + section_text(results, section, width);
    if (const auto pairs = pairs_text(results, section, width); !pairs.empty()) text += "\n" + pairs;
  }
  if (text.empty()) return "These results hold no summary.\n";
  const auto warnings = warnings_text(results, width);
  return text + "\n" +
         wrapped("* best without an oracle; \xE2\x96\xB2 better, \xE2\x96\xBC worse than the base model (the interval excludes zero).",
                 width) +
         pairs_legend(results, width) + (warnings.empty() ? "" : "\n" + warnings);
}

}  // namespace quiver::report
