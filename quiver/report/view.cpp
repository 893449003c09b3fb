#include "quiver/report/view.h"

#include <algorithm>
#include <cmath>

#include "quiver/report/format.h"

namespace quiver::report {

std::string section_label(std::string_view section) {
  if (section == "train") return "Training tasks";
  if (section == "instruction") return "Held-out instructions";
  if (section == "choice") return "Multiple choice";
  if (section == "answer") return "Answers";
  if (section == "program") return "Programs";
  if (section == "text") return "Texts";
  return std::string(section);
}

std::vector<std::string> sections_of(const Results& results) {
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    const bool is_used = std::ranges::find(results.summary, name, &SummaryRow::section) != results.summary.end();
    if (is_used && std::ranges::find(names, name) == names.end()) names.emplace_back(name);
  };
  for (const char* name : {"train", "instruction", "choice", "answer", "program", "text"}) add(name);
  for (const auto& row : results.summary) add(row.section);
  return names;
}

std::vector<std::string> metrics_of(const Results& results, std::string_view section) {
  std::vector<std::string> names;
  for (const auto& metric : results.metrics) {
    const bool is_used =
        std::ranges::any_of(results.summary, [&](const SummaryRow& row) { return row.section == section && row.metric == metric.name; });
    if (is_used) names.push_back(metric.name);
  }
  return names;
}

int decimals_of(const Results& results, std::string_view section, std::string_view metric) {
  double largest = 0;
  for (const auto& row : results.summary) {
    if (row.section == section && row.metric == metric && !std::isnan(row.mean)) largest = std::max(largest, std::abs(row.mean));
  }
  return decimals_for(largest);
}

std::vector<const Method*> methods_of(const Results& results, std::string_view section) {
  std::vector<const Method*> methods;
  for (const auto& method : results.methods) {
    const auto is_used = [&](const SummaryRow& row) { return row.method == method.name && (section.empty() || row.section == section); };
    if (std::ranges::any_of(results.summary, is_used)) methods.push_back(&method);
  }
  return methods;
}

std::int64_t count_tasks(const Results& results, std::string_view kind) { return std::ranges::count(results.tasks, kind, &Task::kind); }

const std::optional<Difference>& difference_of(const SummaryRow& row) {
  return row.section == "instruction" && row.difference_by_task ? row.difference_by_task : row.difference;
}

std::string verdict(const Metric& metric, const Difference& difference) {
  if (!difference.excludes_zero() || metric.better == Better::kUnknown) return "unsure";
  return metric.prefers(difference.mean, 0) ? "better" : "worse";
}

bool ruins_answers(const Results& results, std::string_view section, std::string_view method) {
  const auto* row = results.find_summary(section, method, kAnswerMetric);
  if (row == nullptr || !difference_of(*row)) return false;
  const auto& difference = *difference_of(*row);
  return difference.mean < 0 && (difference.excludes_zero() || row->mean == 0);
}

const SummaryRow* best_of(const Results& results, std::string_view section, std::string_view metric) {
  const SummaryRow* best = nullptr;
  const auto& how = results.metric(metric);
  if (how.better == Better::kUnknown) return nullptr;
  for (const auto& row : results.summary) {
    if (row.section != section || row.metric != metric || std::isnan(row.mean)) continue;
    if (results.method(row.method).is_oracle || (how.name != kAnswerMetric && ruins_answers(results, section, row.method))) continue;
    if (best == nullptr || how.prefers(row.mean, best->mean)) best = &row;
  }
  return best;
}

std::vector<std::size_t> largest(const std::vector<double>& values, std::size_t count) {
  std::vector<std::size_t> positions;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isnan(values[i])) positions.push_back(i);
  }
  std::ranges::stable_sort(positions, std::greater<>(), [&](std::size_t i) { return values[i]; });
  positions.resize(std::min(count, positions.size()));
  return positions;
}

}  // namespace quiver::report
