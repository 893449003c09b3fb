#include "quiver/report/report.h"

#include <vector>

#include "quiver/base/error.h"
#include "quiver/report/assets.h"
#include "quiver/report/format.h"
#include "quiver/report/page.h"
#include "quiver/report/parts.h"
#include "quiver/report/tables.h"
#include "quiver/report/view.h"

namespace quiver::report {
namespace {

struct Part {
  std::string id, heading, html;
};

std::vector<Part> parts_of(const Results& results, const ReportOptions& options, const std::string& run) {
  std::vector<Part> parts;
  const auto add = [&](const char* id, const char* heading, std::string html) {
    if (!html.empty()) parts.push_back({run + "-" + id, heading, std::move(html)});
  };
  add("results", "Results", main_table(results));
  add("warnings", "Warnings", warning_list(results));
  add("pairs", "Every method against every other", pair_tables(results));
  add("differences", "Differences to the base model", difference_part(results));
  add("training", "Training", training_part(results));
  add("similarity", "Similarity of the adapters", similarity_part(results));
  add("routing", "Routing", routing_part(results, run));
  add("tasks", "Task by task", task_tables(results));
  add("generations", "Generations", sample_cards(results, options));
  add("settings", "How this was made", settings_block(results));
  return parts;
}

std::string navigation(const std::vector<Part>& parts) {
  if (parts.size() < 2) return "";
  std::string html = "<nav aria-label=\"Parts\">";
  for (const auto& part : parts) html += format("<a href=\"#{}\">{}</a>", part.id, escape(part.heading));
  return html + "</nav>";
}

std::string subtitle(const Results& results) {
  std::string text;
  for (const auto* item : {&results.base.name, &results.base.dtype, &results.created}) {
    if (!item->empty()) text += (text.empty() ? "" : " \xC2\xB7 ") + escape(*item);
  }
  return text.empty() ? "" : "<p class=\"sub\">" + text + "</p>";
}

std::string run_html(const Results& results, const ReportOptions& options, const std::string& run) {
  const auto parts = parts_of(results, options, run);
  std::string html = subtitle(results) + summary_paragraph(results) + facts_line(results) + navigation(parts);
  for (const auto& part : parts) {
    html += format("<section id=\"{}\"><h2>{}</h2>", part.id, escape(part.heading)) + part.html + "</section>";
  }
  return html;
}

std::string title_of(std::span<const Results> all, const ReportOptions& options) {
  if (!options.title.empty()) return options.title;
  std::vector<std::string> names;
  for (const auto& results : all) {
    if (!results.base.name.empty() && (names.empty() || names.back() != results.base.name)) {
      names.push_back(results.base.name);
    }
  }
  std::string title = "Quiver report";
  for (std::size_t i = 0; i < names.size(); ++i) title += (i == 0 ? ": " : ", ") + names[i];
  return title;
}

}  // namespace

std::string render_report(std::span<const Results> all, const ReportOptions& options) {
  if (all.empty()) fail(ErrorKind::kUsage, "a report needs at least one results document");
  std::string html;
  if (all.size() == 1) {
    html += run_html(all.front(), options, "run1");
  } else {
    html += "<section id=\"side-by-side\"><h2>Side by side</h2>" + comparison_tables(all) + "</section>";
    for (std::size_t i = 0; i < all.size(); ++i) {
      html += format("<h1 class=\"run-title\" id=\"run{}\">{}. {}</h1>", i + 1, i + 1,
                     escape(all[i].base.name.empty() ? "Results" : all[i].base.name));
      html += run_html(all[i], options, format("run{}", i + 1));
    }
  }
  return html_page(title_of(all, options), "", html, "", kReportJs);
}

}  // namespace quiver::report
