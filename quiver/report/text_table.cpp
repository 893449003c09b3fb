#include "quiver/report/text_table.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/report/format.h"
#include "quiver/report/results.h"

namespace quiver::report {
namespace {

constexpr std::int64_t kNarrowest = 60;
constexpr std::int64_t kWidestLabel = 26;
constexpr std::int64_t kNarrowestLabel = 12;
constexpr std::int64_t kGap = 2;

struct TextColumn {
  std::vector<std::string> cells;  ///< the heading first

  std::int64_t width() const {
    std::int64_t widest = 0;
    for (const auto& cell : cells) widest = std::max(widest, display_width(cell));
    return widest;
  }
};

std::string padded(const std::string& text, std::int64_t width, bool left) {
  const auto room = std::string(static_cast<std::size_t>(std::max<std::int64_t>(width - display_width(text), 0)), ' ');
  return left ? text + room : room + text;
}

const char* direction(const Metric& metric) {
  switch (metric.better) {
    case Better::kLower: return " \xE2\x86\x93";
    case Better::kHigher: return " \xE2\x86\x91";
    case Better::kUnknown: break;
  }
  return "";
}

std::string mean_text(const SummaryRow& row, int decimals) {
  auto text = number_text(row.mean, decimals);
  if (!std::isnan(row.standard_error)) text += " \xC2\xB1 " + number_text(row.standard_error, decimals);
  return text;
}

std::string difference_text(const Metric& metric, const SummaryRow& row, int decimals) {
  if (!row.difference) return "";
  const auto& d = *row.difference;
  const bool sure = d.excludes_zero() && metric.better != Better::kUnknown;
  const char* mark = !sure ? "  " : metric.prefers(d.mean, 0) ? " \xE2\x96\xB2" : " \xE2\x96\xBC";
  return format("{} [{}, {}]{}", signed_text(d.mean, decimals), signed_text(d.low, decimals), signed_text(d.high, decimals), mark);
}

std::vector<const Method*> methods_of(const Results& results, const std::string& section) {
  std::vector<const Method*> methods;
  for (const auto& method : results.methods) {
    const bool used =
        std::ranges::any_of(results.summary, [&](const SummaryRow& row) { return row.section == section && row.method == method.name; });
    if (used) methods.push_back(&method);
  }
  return methods;
}

/// The mean, the difference and, if any method has one, the recovered share.
std::vector<TextColumn> metric_columns(const Results& results, const std::string& section, const std::string& name,
                                       const std::vector<const Method*>& methods) {
  const auto& metric = results.metric(name);
  const auto* best = results.best(section, name);
  double largest = 0;
  for (const auto& row : results.summary) {
    if (row.section == section && row.metric == name && !std::isnan(row.mean)) {
      largest = std::max(largest, std::abs(row.mean));
    }
  }
  const int decimals = decimals_for(largest);
  TextColumn mean, difference, recovered;
  mean.cells.push_back(shorten(printable(metric.label), 20) + direction(metric) + " ");
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
    any_difference = any_difference || row->difference;
    any_recovered = any_recovered || row->recovered;
  }
  std::vector<TextColumn> columns = {mean};
  if (any_difference) columns.push_back(difference);
  if (any_recovered) columns.push_back(recovered);
  return columns;
}

std::int64_t total_width(const std::vector<TextColumn>& columns) {
  std::int64_t total = 0;
  for (const auto& column : columns) total += column.width() + kGap;
  return total;
}

/// Lines of a table, its label column shortened to what `width` leaves; the other columns are never
/// cut.
std::string draw(TextColumn labels, const std::vector<TextColumn>& columns, std::int64_t width) {
  const auto room = std::max(kNarrowestLabel, width - total_width(columns));
  for (auto& cell : labels.cells) cell = shorten(cell, std::min(room, kWidestLabel));
  const auto label_width = labels.width();
  std::string text;
  for (std::size_t i = 0; i < labels.cells.size(); ++i) {
    auto line = padded(labels.cells[i], label_width, true);
    for (const auto& column : columns) {
      line += std::string(kGap, ' ') + padded(column.cells[i], column.width(), false);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    if (i > 0) continue;
    // A rule as long as the table: "─" per column.
    for (std::int64_t c = 0; c < label_width + total_width(columns); ++c) text += "\xE2\x94\x80";
    text += "\n";
  }
  return text;
}

std::string section_text(const Results& results, const std::string& section, std::int64_t width) {
  const auto methods = methods_of(results, section);
  TextColumn labels{.cells = {"method"}};
  for (const auto* method : methods) labels.cells.push_back(printable(method->label));
  std::string text;
  std::vector<TextColumn> pending;
  for (const auto& name : results.metrics_of(section)) {
    auto columns = metric_columns(results, section, name, methods);
    const auto needed = std::min(labels.width(), kWidestLabel) + total_width(pending) + total_width(columns);
    if (!pending.empty() && needed > width) {
      text += draw(labels, pending, width) + "\n";
      pending.clear();
    }
    pending.insert(pending.end(), columns.begin(), columns.end());
  }
  if (!pending.empty()) text += draw(labels, pending, width);
  return text;
}

}  // namespace

std::string render_text_table(const nlohmann::json& document, int width) {
  if (width < kNarrowest) {
    fail(ErrorKind::kUsage, "a table needs {} columns at least, and {} were asked for", kNarrowest, width);
  }
  const auto results = parse_results(document, "the results");
  std::string text;
  for (const auto& section : results.sections()) {
    std::int64_t tasks = 0;
    for (const auto& task : results.tasks) tasks += task.kind == section ? 1 : 0;
    text += (text.empty() ? "" : "\n") + shorten(printable(section_label(section)), width - 12);
    if (tasks > 0) text += format(" ({})", tasks);
    text += "\n\n" + section_text(results, section, width);
  }
  if (text.empty()) return "These results hold no summary.\n";
  return text + "\n* best without an oracle; \xE2\x96\xB2 better, \xE2\x96\xBC worse than the base model (the interval\nexcludes zero).\n";
}

}  // namespace quiver::report
