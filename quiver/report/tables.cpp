// Main table, tables per task and training table of tables.h.
#include "quiver/report/tables.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "quiver/base/error.h"
#include "quiver/report/format.h"

namespace quiver::report {
namespace {

struct Column {
  std::string section;
  const Metric* metric;
  int decimals;
  const SummaryRow* best;
};

std::vector<Column> columns_of(const Results& results) {
  std::vector<Column> columns;
  for (const auto& section : sections_of(results)) {
    for (const auto& name : metrics_of(results, section)) {
      columns.push_back({.section = section,
                         .metric = &results.metric(name),
                         .decimals = decimals_of(results, section, name),
                         .best = best_of(results, section, name)});
    }
  }
  return columns;
}

const char* arrow_of(const Metric& metric) {
  if (metric.better == Better::kUnknown) return "";
  return metric.better == Better::kLower ? " <span class=\"dir\" title=\"lower is better\">\xE2\x86\x93</span>"
                                         : " <span class=\"dir\" title=\"higher is better\">\xE2\x86\x91</span>";
}

std::string metric_heading(const Metric& metric) {
  auto text = escape(metric.label) + arrow_of(metric);
  if (!metric.unit.empty()) text += "<br><small>" + escape(metric.unit) + "</small>";
  return text;
}

std::string difference_cell(const Metric& metric, const Difference& d, int decimals) {
  const auto css = verdict(metric, d);
  const char* mark = css == "better" ? "\xE2\x96\xB2 " : css == "worse" ? "\xE2\x96\xBC " : "";
  return format("<div class=\"delta {}\"><b>{}{}</b> <span class=\"ci\">[{}, {}]</span></div>", css, mark, signed_text(d.mean, decimals),
                signed_text(d.low, decimals), signed_text(d.high, decimals));
}

std::string main_cell(const SummaryRow* row, const Column& column) {
  if (row == nullptr) return "<td class=\"num none\">\xE2\x80\x93</td>";
  std::string cell = row == column.best ? "<td class=\"num best\">" : "<td class=\"num\">";
  cell += format("<div class=\"mean\" title=\"n = {}\">{}", row->count, number_text(row->mean, column.decimals));
  if (!std::isnan(row->standard_error)) {
    cell += format("<span class=\"se\"> \xC2\xB1 {}</span>", number_text(row->standard_error, column.decimals));
  }
  cell += "</div>";
  if (difference_of(*row)) cell += difference_cell(*column.metric, *difference_of(*row), column.decimals);
  if (row->recovered) cell += format("<div class=\"ci\">recovers {}</div>", percent_text(*row->recovered));
  return cell + "</td>";
}

std::string main_head(const std::vector<Column>& columns) {
  std::string sections = "<tr><th rowspan=\"2\" scope=\"col\" class=\"first\">Method</th>";
  std::string metrics = "<tr>";
  for (std::size_t i = 0; i < columns.size();) {
    std::size_t end = i;
    for (; end < columns.size() && columns[end].section == columns[i].section; ++end) {
      metrics += format("<th scope=\"col\" class=\"num\">{}</th>", metric_heading(*columns[end].metric));
    }
    sections +=
        format("<th colspan=\"{}\" scope=\"colgroup\" class=\"section\">{}</th>", end - i, escape(section_label(columns[i].section)));
    i = end;
  }
  return "<thead>" + sections + "</tr>" + metrics + "</tr></thead>";
}

using RowKey = std::pair<std::string, std::string>;  // task, method

/// Sortable: the script of the page reads data-v.
std::string sort_heading(const std::string& html, const char* css_class, const std::string& title = "") {
  return format("<th scope=\"col\" class=\"{}\" title=\"{}\"><button type=\"button\" class=\"sort\">{}</button></th>", css_class,
                escape(title), html);
}

std::string value_cell(double value, const std::string& text, const char* css_class = "num") {
  return format("<td class=\"{}\" data-v=\"{}\">{}</td>", css_class, std::isnan(value) ? std::string() : format("{}", value), text);
}

struct TaskTable {
  const Metric* metric;
  std::vector<const Task*> tasks;
  std::vector<const Method*> methods;
  std::map<RowKey, const TaskRow*> rows;
};

std::string task_line(const TaskTable& table, const Task& task, int decimals) {
  const TaskRow* best = nullptr;
  std::int64_t count = task.num_samples;
  std::vector<const TaskRow*> cells;
  for (const auto* method : table.methods) {
    const auto found = table.rows.find({task.name, method->name});
    const TaskRow* row = found == table.rows.end() ? nullptr : found->second;
    cells.push_back(row);
    if (row == nullptr || std::isnan(row->mean)) continue;
    if (row->count > 0) count = row->count;
    if (!method->is_oracle && (best == nullptr || table.metric->prefers(row->mean, best->mean))) best = row;
  }
  if (table.metric->better == Better::kUnknown) best = nullptr;
  std::string line = format("<tr><th scope=\"row\" class=\"first\" data-v=\"{}\">{}</th>", escape(task.name), escape(task.name));
  line += value_cell(static_cast<double>(count), count_text(count));
  for (const auto* row : cells) {
    if (row == nullptr) {
      line += "<td class=\"num none\" data-v=\"\">\xE2\x80\x93</td>";
      continue;
    }
    auto text = number_text(row->mean, decimals);
    if (!std::isnan(row->standard_error)) {
      text = format("<span title=\"\xC2\xB1 {} (n = {})\">{}</span>", number_text(row->standard_error, decimals + 1), row->count, text);
    }
    line += value_cell(row->mean, text, row == best ? "num best" : "num");
  }
  return line + "</tr>";
}

std::string task_table(const TaskTable& table) {
  double largest = 0;
  for (const auto& [key, row] : table.rows) largest = std::isnan(row->mean) ? largest : std::max(largest, std::abs(row->mean));
  const int decimals = decimals_for(largest);
  std::string html = "<div class=\"scroll tall\"><table class=\"data sortable\"><thead><tr>";
  html += sort_heading("Task", "first") + sort_heading("n", "num", "samples");
  for (const auto* method : table.methods) {
    html += sort_heading(escape(method->label), "num", method->description);
  }
  html += "</tr></thead><tbody>";
  for (const auto* task : table.tasks) html += task_line(table, *task, decimals);
  return html + "</tbody></table></div>";
}

/// The tasks that rows name and nobody listed, as a last section.
std::vector<Task> unlisted_tasks(const Results& results) {
  std::vector<Task> tasks;
  for (const auto& row : results.per_task) {
    if (results.find_task(row.task) == nullptr && std::ranges::find(tasks, row.task, &Task::name) == tasks.end()) {
      tasks.push_back({.name = row.task, .kind = "other tasks", .num_samples = row.count, .group = ""});
    }
  }
  return tasks;
}

}  // namespace

std::string main_table(const Results& results) {
  const auto columns = columns_of(results);
  if (columns.empty()) return "";
  std::string html = "<div class=\"scroll\"><table class=\"data main\">" + main_head(columns) + "<tbody>";
  for (const auto& method : results.methods) {
    std::string cells;
    bool any = false;
    for (const auto& column : columns) {
      const auto* row = results.find_summary(column.section, method.name, column.metric->name);
      any = any || row != nullptr;
      cells += main_cell(row, column);
    }
    if (!any) continue;
    html += format("<tr{}><th scope=\"row\" class=\"first\" title=\"{}\">{}</th>", method.is_oracle ? " class=\"oracle\"" : "",
                   escape(method.description), escape(method.label));
    html += cells + "</tr>";
  }
  html += "</tbody></table></div>";
  return html +
         "<p class=\"note\">Mean \xC2\xB1 standard error; below it the paired difference to the base model with its 95 % interval, <span "
         "class=\"better\">\xE2\x96\xB2</span> or <span class=\"worse\">\xE2\x96\xBC</span> (better, worse) where the interval excludes "
         "zero. Bold: the best that is no oracle.</p>";
}

std::string task_tables(const Results& results) {
  const auto others = unlisted_tasks(results);
  std::vector<const Task*> all;
  for (const auto& task : results.tasks) all.push_back(&task);
  for (const auto& task : others) all.push_back(&task);
  std::string html;
  for (const auto& kind : distinct(all, &Task::kind)) {
    for (const auto& metric : results.metrics) {
      TaskTable table{.metric = &metric, .tasks = {}, .methods = {}, .rows = {}};
      for (const auto& row : results.per_task) {
        if (row.metric == metric.name) table.rows[{row.task, row.method}] = &row;
      }
      const auto has = [&](const Task& task, const Method& method) { return table.rows.contains({task.name, method.name}); };
      for (const auto* task : all) {
        const bool used = task->kind == kind && std::ranges::any_of(results.methods, [&](const Method& m) { return has(*task, m); });
        if (used) table.tasks.push_back(task);
      }
      if (table.tasks.empty()) continue;
      for (const auto& method : results.methods) {
        if (std::ranges::any_of(table.tasks, [&](const Task* t) { return has(*t, method); })) {
          table.methods.push_back(&method);
        }
      }
      html += format("<details{}><summary>{}: {}{} <span class=\"muted\">({})</span></summary>{}</details>", html.empty() ? " open" : "",
                     escape(section_label(kind)), escape(metric.label), arrow_of(metric),
                     count_text(static_cast<std::int64_t>(table.tasks.size())), task_table(table));
    }
  }
  return html;
}

std::string training_table(const Results& results) {
  if (results.training.empty()) return "";
  std::string html =
      "<details><summary>Every adapter's training</summary><div class=\"scroll tall\"><table class=\"data sortable\"><thead><tr>";
  html += sort_heading("Adapter", "first") + sort_heading("Kind", "");
  for (const char* figure : {"Rows", "Tokens", "Time", "Tokens/s", "First loss", "Last loss"}) html += sort_heading(figure, "num");
  html += "</tr></thead><tbody>";
  for (const auto& curve : results.training) {
    const double first = curve.loss.empty() ? std::nan("") : curve.loss.front();
    const double last = curve.loss.empty() ? std::nan("") : curve.loss.back();
    html += format("<tr><th scope=\"row\" class=\"first\" data-v=\"{}\">{}</th><td data-v=\"{}\">{}</td>", escape(curve.adapter),
                   escape(curve.adapter), escape(curve.kind), escape(curve.kind));
    html += value_cell(curve.rows, amount_text(curve.rows)) + value_cell(curve.tokens, amount_text(curve.tokens)) +
            value_cell(curve.seconds, duration_text(curve.seconds)) +
            value_cell(curve.tokens_per_second, amount_text(curve.tokens_per_second)) + value_cell(first, number_text(first, 3)) +
            value_cell(last, number_text(last, 3)) + "</tr>";
  }
  return html + "</tbody></table></div></details>";
}

}  // namespace quiver::report
