#include "quiver/recipes/results.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "quiver/base/error.h"
#include "quiver/eval/statistics.h"

namespace quiver::recipes {
namespace {

using nlohmann::json;

constexpr const char* kSections[] = {"train", "instruction", "choice"};
constexpr const char* kMetrics[] = {"nll", "rouge_l", "acc", "acc_norm"};

/// Values by sample, in sample order, of one (section, metric, method).
using Samples = std::map<std::string, double>;

std::vector<double> values_of(const Samples& samples) {
  std::vector<double> values;
  for (const auto& [id, value] : samples) values.push_back(value);
  return values;
}

json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json estimate_json(const std::vector<double>& values) {
  const auto estimate = eval::estimate_mean(values);
  return {{"mean", number(estimate.mean)}, {"stderr", number(estimate.standard_error)}, {"n", estimate.count}};
}

json difference_json(const eval::PairedDifference& difference) {
  return {{"mean", number(difference.mean)}, {"low", number(difference.low)}, {"high", number(difference.high)}, {"n", difference.count}};
}

/// Adds the differences of the samples that both have: with intervals for other rows, and for other tasks.
void add_differences(json& row, const Samples& samples, const Samples& base) {
  std::vector<double> values, baseline;  // in the same order
  std::vector<std::string> tasks;
  for (const auto& [id, value] : samples) {
    if (const auto found = base.find(id); found != base.end()) {
      values.push_back(value);
      baseline.push_back(found->second);
      tasks.push_back(id.substr(0, id.find('\n')));
    }
  }
  if (values.empty()) return;
  row["difference"] = difference_json(eval::paired_difference(values, baseline));
  row["difference_by_task"] = difference_json(eval::clustered_difference(values, baseline, tasks));
}

/// "private-calibrated-arrow" -> "private-mean", "private-oracle".
std::string sibling(const std::string& method, const char* kind) { return method.substr(0, method.find('-') + 1) + kind; }

json recovered_share(const std::map<std::string, Samples>& by_method, const std::string& method, bool lower_is_better) {
  const auto mean_of = [&](const std::string& name) -> double {
    const auto found = by_method.find(name);
    return found == by_method.end() ? NAN : eval::estimate_mean(values_of(found->second)).mean;
  };
  if (method.find('-') == std::string::npos || method == sibling(method, "mean") || method == sibling(method, "oracle")) return nullptr;
  const double mean = mean_of(sibling(method, "mean")), oracle = mean_of(sibling(method, "oracle"));
  if (!(lower_is_better ? oracle < mean : oracle > mean)) return nullptr;  // there is no way to go
  return number((mean - mean_of(method)) / (mean - oracle));
}

}  // namespace

json summarize(const std::vector<Measurement>& measurements, const std::vector<std::string>& methods) {
  json summary = json::array();
  for (const char* section : kSections) {
    for (const char* metric : kMetrics) {
      std::map<std::string, Samples> by_method;
      for (const auto& m : measurements) {
        if (m.section == section && m.metric == metric) by_method[m.method][m.task + "\n" + m.id] = m.value;
      }
      for (const auto& method : methods) {
        const auto found = by_method.find(method);
        if (found == by_method.end()) continue;
        json row = estimate_json(values_of(found->second));
        row["section"] = section;
        row["metric"] = metric;
        row["method"] = method;
        const auto base = by_method.find("base");
        row["difference"] = nullptr;
        row["difference_by_task"] = nullptr;
        if (method != "base" && base != by_method.end()) add_differences(row, found->second, base->second);
        row["recovered"] = recovered_share(by_method, method, std::string(metric) == "nll");
        summary.push_back(std::move(row));
      }
    }
  }
  return summary;
}

json per_task(const std::vector<Measurement>& measurements, const std::vector<std::string>& methods) {
  std::map<std::string, std::map<std::string, std::map<std::string, std::vector<double>>>> values;  // task, metric, method
  for (const auto& m : measurements) values[m.task][m.metric][m.method].push_back(m.value);
  json rows = json::array();
  for (const auto& [task, by_metric] : values) {
    for (const auto& [metric, by_method] : by_metric) {
      for (const auto& method : methods) {
        const auto found = by_method.find(method);
        if (found == by_method.end()) continue;
        json row = estimate_json(found->second);
        row["task"] = task;
        row["metric"] = metric;
        row["method"] = method;
        rows.push_back(std::move(row));
      }
    }
  }
  return rows;
}

}  // namespace quiver::recipes
