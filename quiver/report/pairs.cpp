#include "quiver/report/pairs.h"

#include <algorithm>
#include <cmath>

#include "quiver/base/error.h"
#include "quiver/report/format.h"

namespace quiver::report {
namespace {

PairedTest turned(PairedTest test) {
  const auto turn = [](double& low, double& high) {
    const double negated = -low;
    low = -high;
    high = negated;
  };
  turn(test.low, test.high);
  turn(test.simultaneous_low, test.simultaneous_high);
  return test;
}

Comparison turned(Comparison comparison) {
  std::swap(comparison.method, comparison.other);
  comparison.mean = -comparison.mean;
  for (auto* test : {&comparison.by_row, &comparison.by_task}) {
    if (*test) *test = turned(**test);
  }
  return comparison;
}

std::string phrase_of(const std::string& kind) {
  if (kind == "near chance") return "accuracy may be guessing";
  if (kind == "empty answers") return "half of the answers or more are empty";
  if (kind == "equal answers") return "most answers are the same text";
  return kind;
}

}  // namespace

const std::optional<PairedTest>& test_of(const Comparison& comparison) {
  return comparison.section == "instruction" && comparison.by_task ? comparison.by_task : comparison.by_row;
}

std::string verdict(const Metric& metric, const Comparison& comparison) {
  const auto& test = test_of(comparison);
  if (!test || !test->is_told_apart() || metric.better == Better::kUnknown) return "unsure";
  return metric.prefers(comparison.mean, 0) ? "better" : "worse";
}

Pairs::Pairs(const Results& results, std::string_view section, std::string_view metric) {
  for (const auto& comparison : results.comparisons) {
    if (comparison.section != section || comparison.metric != metric) continue;
    pairs_.emplace(std::pair<std::string_view, std::string_view>(comparison.method, comparison.other), &comparison);
  }
}

std::int64_t Pairs::num_samples() const {
  std::int64_t largest = 0;
  for (const auto& [names, comparison] : pairs_) largest = std::max(largest, comparison->count);
  return largest;
}

std::optional<Comparison> Pairs::find(std::string_view method, std::string_view other) const {
  if (const auto found = pairs_.find({method, other}); found != pairs_.end()) return *found->second;
  if (const auto found = pairs_.find({other, method}); found != pairs_.end()) return turned(*found->second);
  return std::nullopt;
}

std::vector<const SummaryRow*> ranking(const Results& results, std::string_view section, std::string_view metric) {
  const auto& how = results.metric(metric);
  std::vector<const SummaryRow*> rows;
  if (how.better == Better::kUnknown) return rows;
  for (const auto& row : results.summary) {
    if (row.section == section && row.metric == metric && !std::isnan(row.mean)) rows.push_back(&row);
  }
  std::ranges::stable_sort(rows, [&](const SummaryRow* a, const SummaryRow* b) { return how.prefers(a->mean, b->mean); });
  return rows;
}

std::string ranges_text(const std::vector<std::size_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[i]);
    if (end > i) text += (end == i + 1 ? ", " : "\xE2\x80\x93") + std::to_string(numbers[end]);
    i = end + 1;
  }
  return text;
}

std::string p_text(double p) { return p < 0.0001 ? "< 0.0001" : number_text(p, 4); }

std::vector<WarningGroup> warning_groups(const Results& results) {
  std::vector<WarningGroup> groups;
  for (const auto& warning : results.warnings) {
    const auto phrase = phrase_of(warning.kind);
    auto group = std::ranges::find_if(groups, [&](const WarningGroup& known) {
      return known.section == warning.section && known.task == warning.task && known.phrase == phrase;
    });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), {.section = warning.section, .task = warning.task, .phrase = phrase, .warnings = {}});
    }
    group->warnings.push_back(&warning);
  }
  return groups;
}

std::string method_label(const Results& results, const Warning& warning) {
  return warning.method.empty() ? "" : results.method(warning.method).label;
}

}  // namespace quiver::report
