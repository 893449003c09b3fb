#include "quiver/report/text_columns.h"

#include "quiver/base/error.h"

namespace quiver::report {
namespace {

constexpr std::int64_t kNarrowestLabel = 12;

std::string padded(const std::string& text, std::int64_t width, bool left) {
  const auto room = std::string(static_cast<std::size_t>(std::max<std::int64_t>(width - display_width(text), 0)), ' ');
  return left ? text + room : room + text;
}

}  // namespace

std::int64_t total_width(const std::vector<TextColumn>& columns) {
  std::int64_t total = 0;
  for (const auto& column : columns) total += column.width() + kColumnGap;
  return total;
}

std::string draw_columns(TextColumn labels, const std::vector<TextColumn>& columns, std::int64_t width) {
  const auto room = std::max(kNarrowestLabel, width - total_width(columns));
  for (auto& cell : labels.cells) cell = shorten(cell, std::min(room, kWidestLabel));
  const auto label_width = labels.width();
  std::string text;
  for (std::size_t i = 0; i < labels.cells.size(); ++i) {
    auto line = padded(labels.cells[i], label_width, true);
    for (const auto& column : columns) {
      line += std::string(kColumnGap, ' ') + padded(column.cells[i], column.width(), false);
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

std::string wrapped(const std::string& text, std::int64_t width) {
  std::string lines, line;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find(' ', begin), text.size());
    const auto word = text.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && display_width(line) + 1 + display_width(word) > width) {
      lines += line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return line.empty() ? lines : lines + line + "\n";
}

const char* direction(const Metric& metric) {
  return metric.better == Better::kLower ? " \xE2\x86\x93" : metric.better == Better::kHigher ? " \xE2\x86\x91" : "";
}

std::string mark_of(const Metric& metric, const std::optional<Difference>& difference) {
  const auto how = difference ? verdict(metric, *difference) : "unsure";
  return how == "better" ? " \xE2\x96\xB2" : how == "worse" ? " \xE2\x96\xBC" : "  ";
}

std::string difference_text(const Metric& metric, const SummaryRow& row, int decimals) {
  const auto& d = difference_of(row);
  if (!d) return "";
  return format("{} [{}, {}]{}", signed_text(d->mean, decimals), signed_text(d->low, decimals), signed_text(d->high, decimals),
                mark_of(metric, d));
}

}  // namespace quiver::report
