#include "quiver/results/summarize.h"

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/results/compare.h"
#include "quiver/results/statistics.h"
#include "quiver/results/text_scores.h"
#include "quiver/results/warnings.h"

namespace quiver::results {
namespace {

constexpr std::string_view kSections[] = {"train", "instruction", "choice", "answer", "program", "text"};

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

/// Texts of one method, by task and id.
using Texts = std::map<std::string, const Sample*>;

/// The same for texts, which weigh by their lengths. A perplexity has no differences: it is no mean of the texts' values.
void set_text_differences(SummaryRow& row, const TextMetric& metric, const Texts& method, const Texts& base) {
  std::vector<double> values, baseline, weights;
  std::vector<std::string> tasks, ids;
  for (const auto& [id, text] : method) {
    const auto found = base.find(id);
    if (found == base.end() || metric.is_exponential) continue;
    const double value = metric.value_of(*text), other = metric.value_of(*found->second);
    if (!std::isfinite(value) || !std::isfinite(other)) continue;  // an empty text
    values.push_back(value);
    baseline.push_back(other);
    weights.push_back(static_cast<double>(*(text->*metric.length)));
    ids.push_back(id);
    tasks.push_back(text->task);
  }
  if (values.empty()) return;
  row.difference = weighted_difference(values, baseline, weights, ids);
  row.difference_by_task = weighted_difference(values, baseline, weights, tasks);
}

std::vector<const Sample*> list_of(const Texts& texts) {
  std::vector<const Sample*> list;
  for (const auto& [id, text] : texts) list.push_back(text);
  return list;
}

void summarize_texts(Results& results, std::string_view section, const std::string& metric, const TextMetric& how) {
  std::map<std::string, Texts> by_method;
  for (const auto& sample : results.samples) {
    if (sample.section == section && find_value(sample, metric) != nullptr)
      by_method[sample.method][sample.task + "\n" + sample.id] = &sample;
  }
  const auto base = by_method.find("base");
  for (const auto& method : results.methods) {
    const auto found = by_method.find(method.name);
    if (found == by_method.end()) continue;
    const auto estimate = estimate_texts(how, list_of(found->second));
    SummaryRow row{.section = std::string(section),
                   .method = method.name,
                   .metric = metric,
                   .mean = estimate.mean,
                   .standard_error = estimate.standard_error,
                   .count = estimate.count};
    if (!method.is_base() && base != by_method.end()) set_text_differences(row, how, found->second, base->second);
    results.summary.push_back(std::move(row));
  }
}

void summarize_section(Results& results, std::string_view section, const Metric& metric) {
  if (const auto* how = find_text_metric(metric.name)) return summarize_texts(results, section, metric.name, *how);
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

Estimate estimate_task(const std::string& metric, const std::vector<const Sample*>& samples) {
  if (const auto* how = find_text_metric(metric)) return estimate_texts(*how, samples);
  std::vector<double> values;
  for (const auto* sample : samples) values.push_back(*find_value(*sample, metric));
  return estimate_mean(values);
}

}  // namespace

void summarize(Results& results) {
  results.summary.clear();
  for (const auto section : kSections) {
    for (const auto& metric : results.metrics) summarize_section(results, section, metric);
  }
  std::map<std::string, std::map<std::string, std::map<std::string, std::vector<const Sample*>>>> samples;  // task, metric, method
  for (const auto& sample : results.samples) {
    for (const auto& [metric, value] : sample.metrics) samples[sample.task][metric][sample.method].push_back(&sample);
  }
  results.per_task.clear();
  for (const auto& [task, by_metric] : samples) {
    for (const auto& [metric, by_method] : by_metric) {
      for (const auto& method : results.methods) {
        const auto found = by_method.find(method.name);
        if (found == by_method.end()) continue;
        const auto estimate = estimate_task(metric, found->second);
        results.per_task.push_back({task, method.name, metric, estimate.mean, estimate.standard_error, estimate.count});
      }
    }
  }
  results.comparisons = compare_methods(results);
  results.warnings = find_warnings(results);
}

}  // namespace quiver::results
