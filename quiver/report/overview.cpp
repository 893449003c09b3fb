// overview_text of text_columns.h.

#include "quiver/base/error.h"
#include "quiver/report/text_columns.h"

namespace quiver::report {
namespace {

constexpr const char* kHeldOut = "instruction";

/// A column of the table.
struct Figure {
  std::string section, metric;
  bool with_interval = false;
};

/// "NLL of the target" is "NLL" where room is short.
std::string short_name(const Metric& metric) {
  if (metric.name == "nll") return "NLL";
  return metric.name == "acc" ? "accuracy" : printable(metric.label);
}

TextColumn means_of(const Results& results, const Figure& figure, const std::vector<const Method*>& methods) {
  const auto& metric = results.metric(figure.metric);
  TextColumn column{.cells = {short_name(metric) + direction(metric) + (figure.with_interval ? "" : "  ")}};
  for (const auto* method : methods) {
    const auto* row = results.find_summary(figure.section, method->name, figure.metric);
    if (row == nullptr) {
      column.cells.push_back(figure.with_interval ? "\xE2\x80\x93" : "\xE2\x80\x93  ");
    } else {
      column.cells.push_back(number_text(row->mean, 3) + (figure.with_interval ? "" : mark_of(metric, difference_of(*row))));
    }
  }
  return column;
}

TextColumn differences_of(const Results& results, const Figure& figure, const std::vector<const Method*>& methods) {
  const auto& metric = results.metric(figure.metric);
  TextColumn column{.cells = {"from base [95 %]  "}};
  for (const auto* method : methods) {
    const auto* row = results.find_summary(figure.section, method->name, figure.metric);
    column.cells.push_back(row == nullptr ? "" : difference_text(metric, *row, 3));
  }
  return column;
}

TextColumn recovered_of(const Results& results, const std::vector<const Method*>& methods) {
  TextColumn column{.cells = {"recovers"}};
  for (const auto* method : methods) {
    const auto* row = results.find_summary("train", method->name, "nll");
    column.cells.push_back(row != nullptr && row->recovered && !method->is_oracle ? percent_text(*row->recovered) : "");
  }
  return column;
}

/// A line of titles, each above the first column of its group. Titles of columns that are not there are left out.
std::string titles_above(const std::vector<std::pair<std::size_t, std::string>>& groups, const std::vector<TextColumn>& columns,
                         std::int64_t label_width) {
  std::string line;
  for (const auto& [first, title] : groups) {
    if (first >= columns.size()) break;
    auto place = label_width + kColumnGap;
    for (std::size_t c = 0; c < first; ++c) place += columns[c].width() + kColumnGap;
    line += std::string(static_cast<std::size_t>(std::max<std::int64_t>(place - display_width(line), 1)), ' ') + title;
  }
  return line + "\n";
}

/// "Cluster, LAG: Rouge-L 0.300, +0.083 [+0.032, +0.133] against the base."
std::string headline(const Results& results) {
  const auto* best = best_of(results, kHeldOut, kAnswerMetric);
  if (best == nullptr) return "";
  const auto tasks = count_tasks(results, kHeldOut);
  const auto where = tasks > 0 ? format("On {} instruction task{} that no adapter has seen", tasks, tasks == 1 ? "" : "s")
                               : std::string("On instruction tasks that no adapter has seen");
  const auto& method = results.method(best->method);
  if (method.is_base() || !difference_of(*best))
    return format("{}, no method answers better than the base: Rouge-L {}.", where, number_text(best->mean, 3));
  const auto& d = *difference_of(*best);
  return format("{}, {} answers {}: Rouge-L {}, {} against the base, 95 % interval by task [{}, {}].", where, printable(method.label),
                d.low > 0 ? "best" : "best, by what may be chance", number_text(best->mean, 3), signed_text(d.mean, 3),
                signed_text(d.low, 3), signed_text(d.high, 3));
}

/// Name and description of a method, without the kind of adapters that it is used over: "Private, gated Arrow" is "gated Arrow".
std::pair<std::string, std::string> in_a_word(const Method& method) {
  auto name = printable(method.label), what = printable(method.description);
  const auto colon = what.find(" adapters: ");
  if (!what.starts_with("over the ") || colon == std::string::npos) return {name, what};
  what = what.substr(colon + std::string_view(" adapters: ").size());
  if (const auto comma = name.find(", "); comma != std::string::npos) name = name.substr(comma + 2);
  return {name, what};
}

}  // namespace

std::string overview_text(const Results& results, std::int64_t width) {
  const auto methods = methods_of(results);
  const bool has_base = std::ranges::any_of(methods, &Method::is_base);
  if (!has_base || methods.size() < 2 || results.find_summary(kHeldOut, "base", kAnswerMetric) == nullptr) return "";
  TextColumn labels{.cells = {"method"}};
  for (const auto* method : methods) labels.cells.push_back(printable(method->label));
  const Figure answers{kHeldOut, std::string(kAnswerMetric), true};
  std::vector<TextColumn> columns = {means_of(results, answers, methods), differences_of(results, answers, methods)};
  std::vector<std::pair<std::size_t, std::string>> groups = {{0, "tasks never seen"}};  // first column, title
  const Figure others[] = {{kHeldOut, "nll"}, {"train", "nll"}, {"choice", "acc"}};
  for (const auto& figure : others) {
    if (results.find_summary(figure.section, "base", figure.metric) == nullptr) continue;
    if (figure.section != kHeldOut) groups.emplace_back(columns.size(), figure.section == "train" ? "own tasks" : "choice");
    columns.push_back(means_of(results, figure, methods));
    if (figure.section == "train") columns.push_back(recovered_of(results, methods));
  }
  const auto label_width = std::min(labels.width(), kWidestLabel);
  while (columns.size() > 1 && total_width(columns) + label_width > width) columns.pop_back();  // the tables below hold them, too
  auto text =
      wrapped(headline(results), width) + "\n" + titles_above(groups, columns, label_width) + draw_columns(labels, columns, width) + "\n";
  text +=
      wrapped(
          "\xE2\x96\xB2 better, \xE2\x96\xBC worse than the base: the 95 % interval excludes 0. Tasks never seen: held-out instructions, "
          "intervals by task; own tasks: those trained on; choice: multiple choice; recovers: of the way from the mean of the "
          "adapters to the oracle.",
          width) +
      "\n";
  std::vector<std::string> said;  // once for all kinds of adapters: "Arrow", not "Private, Arrow" and "Cluster, Arrow"
  for (const auto* method : methods) {
    const auto [name, what] = in_a_word(*method);
    if (what.empty() || std::ranges::find(said, name) != said.end()) continue;
    said.push_back(name);
    text += shorten(format("{:<16} {}", name, what), width) + "\n";
  }
  return text;
}

}  // namespace quiver::report
