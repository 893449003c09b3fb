#include "quiver/results/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/results/bootstrap.h"
#include "quiver/results/statistics.h"
#include "quiver/results/text_scores.h"

namespace quiver::results {
namespace {

constexpr double kConfidence = 0.95;

/// The values of one metric of a section, a column for each method.
struct Table {
  std::vector<std::string> methods;          ///< M, those with a value
  std::vector<std::string> tasks;            ///< of each row
  std::vector<std::vector<double>> columns;  ///< M x rows, NaN where a method has no such sample
  std::vector<double> weights;               ///< of each row; empty where all are alike
};

/// Rows of one section by task and id, in that order.
using RowIndex = std::map<std::pair<std::string_view, std::string_view>, std::size_t>;

Table table_of(const Results& results, std::string_view section, std::string_view metric) {
  RowIndex rows;
  std::map<RowIndex::key_type, double> lengths;
  const auto* text_metric = find_text_metric(metric);
  if (text_metric != nullptr && text_metric->is_exponential) return {};
  std::map<std::string_view, std::vector<std::pair<const Sample*, double>>> by_method;
  for (const auto& sample : results.samples) {
    if (sample.section != section) continue;
    const auto found = std::ranges::find(sample.metrics, metric, &std::pair<std::string, double>::first);
    if (found == sample.metrics.end() || !std::isfinite(found->second)) continue;
    const RowIndex::key_type key(sample.task, sample.id);
    rows.emplace(key, 0);
    if (text_metric != nullptr) lengths.emplace(key, std::max<double>(1, static_cast<double>((sample.*text_metric->length).value_or(1))));
    by_method[sample.method].emplace_back(&sample, found->second);
  }
  Table table;
  for (auto& [key, row] : rows) {
    row = table.tasks.size();
    table.tasks.emplace_back(key.first);
    if (text_metric != nullptr) table.weights.push_back(lengths.at(key));
  }
  for (const auto& method : results.methods) {
    const auto found = by_method.find(method.name);
    if (found == by_method.end()) continue;
    table.methods.push_back(method.name);
    auto& column = table.columns.emplace_back(rows.size(), std::numeric_limits<double>::quiet_NaN());
    for (const auto& [sample, value] : found->second) column[rows.at({sample->task, sample->id})] = value;
  }
  return table;
}

/// Pairs of columns that share the same rows, and so the same draws.
using Pairs = std::vector<std::pair<std::size_t, std::size_t>>;

std::map<std::vector<std::size_t>, Pairs> pairs_by_rows(const Table& table) {
  std::map<std::vector<std::size_t>, Pairs> groups;
  for (std::size_t first = 0; first < table.columns.size(); ++first) {
    for (std::size_t second = first + 1; second < table.columns.size(); ++second) {
      std::vector<std::size_t> rows;
      for (std::size_t row = 0; row < table.tasks.size(); ++row) {
        if (!std::isnan(table.columns[first][row]) && !std::isnan(table.columns[second][row])) rows.push_back(row);
      }
      if (!rows.empty()) groups[rows].emplace_back(first, second);
    }
  }
  return groups;
}

/// The rows that a group of pairs shares.
struct Shared {
  std::vector<std::string> tasks;
  std::vector<std::int64_t> clusters;     ///< number of each row's task
  std::vector<std::size_t> used;          ///< columns of the table that some pair needs
  std::vector<std::vector<double>> list;  ///< of each column of the table; empty where it is not used
  std::vector<double> values;             ///< rows x used, each times its weight
  std::vector<double> weights;            ///< of each row; empty where all are alike
  std::vector<std::string> rows;          ///< a name for each row, where rows weigh

  std::size_t place_of(std::size_t column) const { return static_cast<std::size_t>(std::ranges::find(used, column) - used.begin()); }
};

Shared shared_by(const Table& table, const std::vector<std::size_t>& rows, const Pairs& pairs) {
  Shared shared;
  std::map<std::string_view, std::int64_t> numbers;
  for (const auto row : rows) {
    shared.tasks.push_back(table.tasks[row]);
    if (!table.weights.empty()) {
      shared.weights.push_back(table.weights[row]);
      shared.rows.push_back(std::to_string(row));
    }
    shared.clusters.push_back(numbers.emplace(table.tasks[row], static_cast<std::int64_t>(numbers.size())).first->second);
  }
  shared.list.resize(table.columns.size());
  for (std::size_t column = 0; column < table.columns.size(); ++column) {
    const auto needs = [&](const auto& pair) { return pair.first == column || pair.second == column; };
    if (std::ranges::none_of(pairs, needs)) continue;
    shared.used.push_back(column);
    for (const auto row : rows) shared.list[column].push_back(table.columns[column][row]);
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double weight = shared.weights.empty() ? 1 : shared.weights[i];
    for (const auto column : shared.used) shared.values.push_back(weight * shared.list[column][i]);
  }
  return shared;
}

/// The units of the bootstrap: rows or tasks, as large as the weights of their rows.
BootstrapUnits row_units(const Shared& shared) {
  auto units = rows_as_units(shared.values, static_cast<std::int64_t>(shared.used.size()));
  if (!shared.weights.empty()) units.sizes = shared.weights;
  return units;
}

BootstrapUnits task_units(const Shared& shared) {
  auto units = clusters_as_units(shared.values, static_cast<std::int64_t>(shared.used.size()), shared.clusters);
  if (shared.weights.empty()) return units;
  std::ranges::fill(units.sizes, 0);
  for (std::size_t i = 0; i < shared.weights.size(); ++i) units.sizes[static_cast<std::size_t>(shared.clusters[i])] += shared.weights[i];
  return units;
}

bool is_binary(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double value) { return value == 0 || value == 1; });
}

/// Sets the test's name and p-value of other rows.
void set_row_test(PairedTest& test, const std::vector<double>& first, const std::vector<double>& second) {
  if (!is_binary(first) || !is_binary(second)) {
    test.test = "paired t";
    test.p = paired_t_p_value(first, second);
    return;
  }
  std::int64_t only_first = 0, only_second = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    only_first += first[i] > second[i] ? 1 : 0;
    only_second += first[i] < second[i] ? 1 : 0;
  }
  test.test = "mcnemar";
  test.p = mcnemar_p_value(only_first, only_second);
}

/// Sets the mean, and the tests' names and p-values.
void set_tests(Comparison& comparison, const Shared& shared, const std::vector<double>& first, const std::vector<double>& second) {
  auto& by_row = comparison.by_row.emplace();
  auto& by_task = comparison.by_task.emplace();
  by_task.test = "clustered t";
  if (shared.weights.empty()) {
    comparison.mean = paired_difference(first, second).mean;
    set_row_test(by_row, first, second);
    by_task.p = clustered_t_p_value(first, second, shared.tasks);
    return;
  }
  comparison.mean = weighted_difference(first, second, shared.weights, shared.rows).mean;
  by_row.test = "weighted t";
  by_row.p = weighted_t_p_value(first, second, shared.weights, shared.rows);
  by_task.p = weighted_t_p_value(first, second, shared.weights, shared.tasks);
}

/// One way of drawing anew, rows or tasks, for all pairs of a section and metric.
class Resampling {
 public:
  Resampling(const CompareOptions& options, const std::string& stream)
      : num_draws_(options.num_draws), stream_(options.seed, stream), together_(options.num_draws) {}

  /// Draws from these units: add() is of pairs of their columns from here on.
  void draw(const BootstrapUnits& units) {
    num_columns_ = static_cast<std::size_t>(units.num_columns);
    is_known_ = units.num_units() > 1;
    if (is_known_) means_ = bootstrap_means(units, num_draws_, stream_);
  }

  /// Sets the interval of this pair alone. The pair gets its interval beside all others in finish().
  void add(PairedTest& test, double mean, std::size_t first, std::size_t second) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    test.low = test.simultaneous_low = -kInfinity;
    test.high = test.simultaneous_high = kInfinity;
    tests_.emplace_back(&test, is_known_);
    if (!is_known_) return;
    std::vector<double> draws(static_cast<std::size_t>(num_draws_));
    for (std::size_t b = 0; b < draws.size(); ++b) draws[b] = means_[b * num_columns_ + first] - means_[b * num_columns_ + second];
    const auto interval = percentile_interval(draws, kConfidence);
    test.low = interval.low, test.high = interval.high;
    together_.add(mean, draws);
  }

  /// Sets what is of all pairs at once.
  void finish() {
    const auto intervals = together_.intervals(kConfidence);
    std::vector<double> p_values;
    for (const auto& [test, is_known] : tests_) p_values.push_back(test->p);
    const auto corrected = holm_corrected(p_values);
    std::size_t next = 0;
    for (std::size_t i = 0; i < tests_.size(); ++i) {
      const auto& [test, is_known] = tests_[i];
      test->corrected_p = corrected[i];
      if (!is_known) continue;
      test->simultaneous_low = intervals[next].low, test->simultaneous_high = intervals[next].high;
      ++next;
    }
  }

 private:
  std::int64_t num_draws_;
  RandomStream stream_;
  SimultaneousIntervals together_;
  std::vector<double> means_;  // draws x columns
  std::size_t num_columns_ = 0;
  bool is_known_ = false;
  std::vector<std::pair<PairedTest*, bool>> tests_;
};

/// Comparisons of one section and metric, appended.
void compare_table(const Table& table, const Comparison& names, const CompareOptions& options, std::vector<Comparison>& found) {
  std::map<std::pair<std::size_t, std::size_t>, Comparison> by_pair;  // in the order of the methods; entries stay where they are
  Resampling by_row(options, format("bootstrap/{}/{}/row", names.section, names.metric));
  Resampling by_task(options, format("bootstrap/{}/{}/task", names.section, names.metric));
  for (const auto& [rows, pairs] : pairs_by_rows(table)) {
    const auto shared = shared_by(table, rows, pairs);
    by_row.draw(row_units(shared));
    by_task.draw(task_units(shared));
    for (const auto& [first, second] : pairs) {
      auto& comparison = by_pair.emplace(std::pair(first, second), names).first->second;
      comparison.method = table.methods[first];
      comparison.other = table.methods[second];
      comparison.count = static_cast<std::int64_t>(rows.size());
      set_tests(comparison, shared, shared.list[first], shared.list[second]);
      by_row.add(*comparison.by_row, comparison.mean, shared.place_of(first), shared.place_of(second));
      by_task.add(*comparison.by_task, comparison.mean, shared.place_of(first), shared.place_of(second));
    }
  }
  by_row.finish();
  by_task.finish();
  for (auto& [pair, comparison] : by_pair) found.push_back(std::move(comparison));
}

}  // namespace

std::vector<Comparison> compare_methods(const Results& results, const CompareOptions& options) {
  if (options.num_draws < 1) fail(ErrorKind::kUsage, "a bootstrap by {} draws is undefined; expected one at least", options.num_draws);
  std::vector<std::string_view> sections;
  for (const auto& sample : results.samples) {
    if (std::ranges::find(sections, sample.section) == sections.end()) sections.push_back(sample.section);
  }
  std::vector<Comparison> found;
  for (const auto section : sections) {
    for (const auto& metric : results.metrics) {
      compare_table(table_of(results, section, metric.name), {.section = std::string(section), .metric = metric.name}, options, found);
    }
  }
  return found;
}

}  // namespace quiver::results
