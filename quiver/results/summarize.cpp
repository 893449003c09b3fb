#include "quiver/results/summarize.h"

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/results/compare.h"
#include "quiver/results/statistics.h"
#include "quiver/results/warnings.h"

namespace quiver::results {
namespace {

constexpr std::string_view kSections[] = {"train", "instruction", "choice", "answer", "program"};

/// Values by sample, in sample order, of one (section, metric, method).
using Values = std::map<std::string, double>;

/// The sample's value of a metric; nullptr if it has none.
const double* find_value(const Sample& sample, std::string_view metric) {
  for (const auto& [name, value] : sample.metrics) {
    if (name == metric) return &value;
  }
  return nullptr;
}

Estimate estimate_of(const Values& values) {
  std::vector<double> list;
  for (const auto& [id, value] : values) list.push_back(value);
  return estimate_mean(list);
}

/// Sets the differences of the samples that both have: with intervals for other rows, and for other tasks.
void set_differences(SummaryRow& row, const Values& method, const Values& base) {
  std::vector<double> values, baseline;  // in the same order
  std::vector<std::string> tasks;
  for (const auto& [id, value] : method) {
    if (const auto found = base.find(id); found != base.end()) {
      values.push_back(value);
      baseline.push_back(found->second);
      tasks.push_back(id.substr(0, id.find('\n')));
    }
  }
  if (values.empty()) return;
  row.difference = paired_difference(values, baseline);
  row.difference_by_task = clustered_difference(values, baseline, tasks);
}

/// "private-calibrated-arrow" -> "private-mean", "private-oracle".
std::string sibling(const std::string& method, const char* kind) { return method.substr(0, method.find('-') + 1) + kind; }

std::optional<double> recovered_share(const std::map<std::string, Values>& by_method, const std::string& method, const Metric& metric) {
  const auto mean_of = [&](const std::string& name) -> double {
    const auto found = by_method.find(name);
    return found == by_method.end() ? NAN : estimate_of(found->second).mean;
  };
  const bool is_end = method == sibling(method, "mean") || method == sibling(method, "oracle");
  if (method.find('-') == std::string::npos || is_end) return std::nullopt;
  const double mean = mean_of(sibling(method, "mean")), oracle = mean_of(sibling(method, "oracle"));
  if (!metric.prefers(oracle, mean)) return std::nullopt;  // there is no way to go
  return (mean - mean_of(method)) / (mean - oracle);
}

void summarize_section(Results& results, std::string_view section, const Metric& metric) {
  std::map<std::string, Values> by_method;
  for (const auto& sample : results.samples) {
    const auto* value = sample.section == section ? find_value(sample, metric.name) : nullptr;
    if (value != nullptr) by_method[sample.method][sample.task + "\n" + sample.id] = *value;
  }
  const auto base = by_method.find("base");
  for (const auto& method : results.methods) {
    const auto found = by_method.find(method.name);
    if (found == by_method.end()) continue;
    const auto estimate = estimate_of(found->second);
    SummaryRow row{.section = std::string(section),
                   .method = method.name,
                   .metric = metric.name,
                   .mean = estimate.mean,
                   .standard_error = estimate.standard_error,
                   .count = estimate.count,
                   .difference = std::nullopt,
                   .difference_by_task = std::nullopt,
                   .recovered = recovered_share(by_method, method.name, metric)};
    if (!method.is_base() && base != by_method.end()) set_differences(row, found->second, base->second);
    results.summary.push_back(std::move(row));
  }
}

}  // namespace

void summarize(Results& results) {
  results.summary.clear();
  for (const auto section : kSections) {
    for (const auto& metric : results.metrics) summarize_section(results, section, metric);
  }
  std::map<std::string, std::map<std::string, std::map<std::string, std::vector<double>>>> values;  // task, metric, method
  for (const auto& sample : results.samples) {
    for (const auto& [metric, value] : sample.metrics) values[sample.task][metric][sample.method].push_back(value);
  }
  results.per_task.clear();
  for (const auto& [task, by_metric] : values) {
    for (const auto& [metric, by_method] : by_metric) {
      for (const auto& method : results.methods) {
        const auto found = by_method.find(method.name);
        if (found == by_method.end()) continue;
        const auto estimate = estimate_mean(found->second);
        results.per_task.push_back({task, method.name, metric, estimate.mean, estimate.standard_error, estimate.count});
      }
    }
  }
  results.comparisons = compare_methods(results);
  results.warnings = find_warnings(results);
}

}  // namespace quiver::results
