// pair_tables and warning_list of tables.h.
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/format.h"
#include "quiver/report/pairs.h"
#include "quiver/report/tables.h"

namespace quiver::report {
namespace {

constexpr std::size_t kMostUnfolded = 10;  // warnings; the others have a line together

std::string interval_text(double low, double high, int decimals) {
  return format("[{}, {}]", signed_text(low, decimals), signed_text(high, decimals));
}

std::string test_text(const char* unit, const PairedTest& test, int decimals) {
  return format("\n{}: {}, all pairs at once {}; {}, p {}, corrected {}", unit, interval_text(test.low, test.high, decimals),
                interval_text(test.simultaneous_low, test.simultaneous_high, decimals), test.test, p_text(test.p),
                p_text(test.corrected_p));
}

std::string title_of(const Results& results, const Comparison& pair, int decimals) {
  auto title = format("{} \xE2\x88\x92 {}: {} (n = {})", results.method(pair.method).label, results.method(pair.other).label,
                      signed_text(pair.mean, decimals + 1), pair.count);
  if (pair.by_row) title += test_text("by sample", *pair.by_row, decimals);
  if (pair.by_task) title += test_text("by task", *pair.by_task, decimals);
  return title;
}

std::string pair_cell(const Results& results, const Metric& metric, const std::optional<Comparison>& pair, int decimals) {
  if (!pair) return "<td class=\"num none\">\xE2\x80\x93</td>";
  const auto how = verdict(metric, *pair);
  const char* mark = how == "better" ? "\xE2\x96\xB2 " : how == "worse" ? "\xE2\x96\xBC " : "";
  return format("<td class=\"num {}\" title=\"{}\">{}{}</td>", how, escape(title_of(results, *pair, decimals)), mark,
                signed_text(pair->mean, decimals));
}

std::string matrix(const Results& results, const Metric& metric, const std::vector<const SummaryRow*>& rows, const Pairs& pairs,
                   int decimals) {
  std::string html = "<div class=\"scroll\"><table class=\"data pairs\"><thead><tr><th scope=\"col\" class=\"first\">Method</th>";
  html += "<th scope=\"col\" class=\"num\">Mean</th>";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    html += format("<th scope=\"col\" class=\"num\" title=\"{}\">{}</th>", escape(results.method(rows[i]->method).label), i + 1);
  }
  html += "</tr></thead><tbody>";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& method = results.method(rows[i]->method);
    html += format("<tr{}><th scope=\"row\" class=\"first\">{}\xC2\xA0 {}</th><td class=\"num mean\">{}</td>",
                   method.is_oracle ? " class=\"oracle\"" : "", i + 1, escape(method.label), number_text(rows[i]->mean, decimals));
    for (std::size_t j = 0; j < rows.size(); ++j) {
      html += i == j ? std::string("<td class=\"num none\">\xC2\xB7</td>")
                     : pair_cell(results, metric, pairs.find(rows[i]->method, rows[j]->method), decimals);
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

/// The figures of one test: two intervals, its name and two p-values.
std::string figure_cells(const std::optional<PairedTest>& test, int decimals) {
  if (!test) return "<td class=\"num none\" colspan=\"5\">\xE2\x80\x93</td>";
  return format(
      "<td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>",
      interval_text(test->low, test->high, decimals), interval_text(test->simultaneous_low, test->simultaneous_high, decimals),
      escape(test->test), p_text(test->p), p_text(test->corrected_p));
}

/// What the titles of the matrix hold, for readers without a mouse.
std::string figures(const Results& results, const std::vector<const SummaryRow*>& rows, const Pairs& pairs, int decimals) {
  std::string html =
      "<details><summary>All pairs in figures</summary><div class=\"scroll tall\"><table class=\"data figures\"><thead><tr><th "
      "rowspan=\"2\" "
      "scope=\"col\" class=\"first\">Method \xE2\x88\x92 other</th><th rowspan=\"2\" scope=\"col\" class=\"num\">Difference</th><th "
      "rowspan=\"2\" scope=\"col\" class=\"num\">n</th><th colspan=\"5\" scope=\"colgroup\" class=\"section\">By sample</th><th "
      "colspan=\"5\" scope=\"colgroup\" class=\"section\">By task</th></tr><tr>";
  for (int unit = 0; unit < 2; ++unit) {
    html +=
        "<th scope=\"col\" class=\"num\">95 % interval</th><th scope=\"col\" class=\"num\">All pairs at once</th><th "
        "scope=\"col\" class=\"num\">Test</th><th scope=\"col\" class=\"num\">p</th><th scope=\"col\" class=\"num\">Corrected</th>";
  }
  html += "</tr></thead><tbody>";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = i + 1; j < rows.size(); ++j) {
      const auto pair = pairs.find(rows[i]->method, rows[j]->method);
      if (!pair) continue;
      html += format("<tr><th scope=\"row\" class=\"first\">{} \xE2\x88\x92 {}</th><td class=\"num\">{}</td><td class=\"num\">{}</td>",
                     escape(results.method(pair->method).label), escape(results.method(pair->other).label),
                     signed_text(pair->mean, decimals + 1), count_text(pair->count));
      html += figure_cells(pair->by_row, decimals) + figure_cells(pair->by_task, decimals) + "</tr>";
    }
  }
  return html + "</tbody></table></div></details>";
}

}  // namespace

std::string pair_tables(const Results& results) {
  std::string html;
  for (const auto& section : sections_of(results)) {
    bool is_main = true;
    for (const auto& name : metrics_of(results, section)) {
      const auto& metric = results.metric(name);
      const Pairs pairs(results, section, name);
      const auto rows = ranking(results, section, name);
      if (pairs.size() == 0 || rows.size() < 2) continue;
      const int decimals = decimals_of(results, section, name);
      html += format("<details{}><summary>{}: {} <span class=\"muted\">({} pair{}, {})</span></summary>", is_main ? " open" : "",
                     escape(section_label(section)), escape(metric.label), pairs.size(), pairs.size() == 1 ? "" : "s",
                     section == "instruction" ? "by task" : "by sample");
      html += matrix(results, metric, rows, pairs, decimals) + figures(results, rows, pairs, decimals) + "</details>";
      is_main = false;
    }
  }
  if (html.empty()) return "";
  return html +
         "<p class=\"note\">Methods by mean, the best first; the row's method minus the column's on the samples that both have. <span "
         "class=\"better\">\xE2\x96\xB2</span> the row's is better, <span class=\"worse\">\xE2\x96\xBC</span> worse: the 95 % interval for "
         "all pairs of the table at once excludes zero, and the p-value is below 0.05 after Holm\xE2\x80\x99s correction for all pairs. By "
         "task for held-out instructions, else by sample. Nothing is corrected for looking at several tables. In italics: an oracle, which "
         "competes with nobody.</p>";
}

std::string warning_list(const Results& results) {
  std::string html;
  const auto groups = warning_groups(results);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto& group = groups[i];
    std::string list;
    for (const auto* warning : group.warnings) {
      list += format("<div><dt>{}</dt><dd>{}</dd></div>", escape(method_label(results, *warning)), escape(warning->text));
    }
    if (i == kMostUnfolded) html += format("<details><summary>{} more</summary>", groups.size() - i);
    html += format("<details><summary>{}{} <span class=\"muted\">({})</span></summary><dl>{}</dl></details>",
                   group.task.empty() ? "" : escape(group.task) + ": ", escape(group.phrase),
                   group.warnings.size() == 1 ? "1 method" : format("{} methods", group.warnings.size()), list);
  }
  if (groups.size() > kMostUnfolded) html += "</details>";
  return html.empty() ? "" : "<div class=\"warnings\">" + html + "</div>";
}

}  // namespace quiver::report
