// pairs_text and warnings_text of text_columns.h.
#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/report/pairs.h"
#include "quiver/report/text_columns.h"

namespace quiver::report {
namespace {

constexpr std::int64_t kWidestList = 20;
constexpr std::size_t kMostWarnings = 12;
constexpr const char* kDagger = " \xE2\x80\xA0";

/// "2, 5–9", or "11 of 19" where that is too wide.
std::string list_text(const std::vector<std::size_t>& numbers, std::size_t num_others) {
  auto text = ranges_text(numbers);
  if (display_width(text) > kWidestList) return format("{} of {}", numbers.size(), num_others);
  return text.empty() ? "\xE2\x80\x93" : text;
}

/// The methods of a group: "Base, Shared", or "all 12 methods".
std::string names_of(const Results& results, const WarningGroup& group) {
  const auto all = methods_of(results, group.section).size();
  if (all > 2 && group.warnings.size() == all) return format("all {} methods", all);
  std::string names;
  for (const auto* warning : group.warnings) {
    const auto name = printable(method_label(results, *warning));
    if (!name.empty()) names += (names.empty() ? "" : "; ") + name;
  }
  return names;
}

}  // namespace

std::string pairs_text(const Results& results, const std::string& section, std::int64_t width) {
  const auto metrics = metrics_of(results, section);
  if (metrics.empty()) return "";
  const auto& metric = results.metric(metrics.front());
  const Pairs pairs(results, section, metric.name);
  const auto rows = ranking(results, section, metric.name);
  if (pairs.size() == 0 || rows.size() < 2) return "";
  TextColumn labels{.cells = {"    method"}}, means{.cells = {"mean" + std::string(direction(metric))}}, beats{.cells = {"beats"}},
      loses{.cells = {"loses to"}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::size_t> worse, better;
    for (std::size_t j = 0; j < rows.size(); ++j) {
      const auto pair = i == j ? std::nullopt : pairs.find(rows[i]->method, rows[j]->method);
      const auto how = pair ? verdict(metric, *pair) : "unsure";
      if (how == "better") worse.push_back(j + 1);
      if (how == "worse") better.push_back(j + 1);
    }
    const auto& method = results.method(rows[i]->method);
    const auto* mark = method.is_oracle ? kDagger : "";
    labels.cells.push_back(format("{:>2}  {}{}", i + 1, shorten(printable(method.label), kWidestLabel - 6), mark));
    means.cells.push_back(number_text(rows[i]->mean, decimals_of(results, section, metric.name)));
    beats.cells.push_back(list_text(worse, rows.size() - 1));
    loses.cells.push_back(list_text(better, rows.size() - 1));
  }
  return wrapped(format("Who beats whom by {}: {} pair{}, {} samples", printable(metric.label), pairs.size(), pairs.size() == 1 ? "" : "s",
                        count_text(pairs.num_samples())),
                 width) +
         "\n" + draw_columns(labels, {means, beats, loses}, width);
}

std::string pairs_legend(const Results& results, std::int64_t width) {
  if (results.comparisons.empty()) return "";
  return wrapped(
      "beats, loses to: methods by their number, where the 95 % interval for all pairs at once excludes 0 and the p-value is below 0.05 "
      "after "
      "Holm's correction for all pairs; by task for held-out instructions, else by sample. \xE2\x80\xA0 knows each sample's task and "
      "competes with nobody.",
      width);
}

std::string warnings_text(const Results& results, std::int64_t width) {
  const auto groups = warning_groups(results);
  if (groups.empty()) return "";
  std::string text = "Warnings\n";
  for (std::size_t i = 0; i < std::min(groups.size(), kMostWarnings); ++i) {
    const auto& group = groups[i];
    const auto names = names_of(results, group);
    auto line = group.task.empty() ? std::string() : printable(group.task) + ": ";
    if (group.warnings.size() == 1) {
      line += (names.empty() ? "" : names + ": ") + printable(group.warnings.front()->text);
    } else {
      line += format("{} ({})", printable(group.phrase), names);
    }
    text += wrapped("- " + line, width);
  }
  if (groups.size() > kMostWarnings) text += format("- and {} more\n", groups.size() - kMostWarnings);
  return text;
}

}  // namespace quiver::report
