// A results file (version 1) as values: checked once, completely, so that what renders it trusts
// it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::report {

inline constexpr std::int64_t kResultsVersion = 1;
/// Numbers of a larger size are refused: charts compute with differences and squares of numbers.
inline constexpr double kMaxNumber = 1e100;
/// Labels of clusters of a larger size are refused.
inline constexpr double kMaxLabel = 1e9;
/// The metric of generated answers.
inline constexpr std::string_view kAnswerMetric = "rouge_l";

struct Task {
  std::string name;
  std::string kind;  ///< "train", "instruction", "choice": the section that the task belongs to
  std::int64_t num_samples = 0;
  std::string group;  ///< its cluster, or empty
};

struct Method {
  std::string name;
  std::string label;
  std::string description;
  bool is_oracle = false;  ///< knows the task of each sample, so that it competes with nobody

  bool is_base() const { return name == "base"; }
};

enum class Better { kUnknown, kLower, kHigher };

struct Metric {
  std::string name;
  std::string label;
  std::string unit;
  Better better = Better::kUnknown;

  /// Is `a` a better value than `b`? False if nobody said which way is better.
  bool prefers(double a, double b) const;
};

// In these, a number that the file leaves out, or that is no finite number, is NaN.

/// The paired difference to the base model with its 95 % interval.
struct Difference {
  double mean = 0;
  double low = 0;
  double high = 0;

  bool excludes_zero() const { return low > 0 || high < 0; }
};

struct SummaryRow {
  std::string section, method, metric;
  double mean = 0;
  double standard_error = 0;
  std::int64_t count = 0;
  std::optional<Difference> difference;
  std::optional<double> recovered;  ///< share of the way from the mean of the adapters to the oracle
};

struct TaskRow {
  std::string task, method, metric;
  double mean = 0;
  double standard_error = 0;
  std::int64_t count = 0;
};

struct Curve {
  std::string adapter;
  std::string kind;
  std::vector<double> steps;
  std::vector<double> loss;  ///< as long as steps
  double tokens = 0, rows = 0, seconds = 0, tokens_per_second = 0;
};

struct Clusters {
  std::vector<std::string> adapters;  ///< N
  std::vector<std::int64_t> labels;   ///< N
  std::vector<double> similarity;     ///< N x N, row by row; empty if the file has none
};

struct LayerShare {
  std::string layer;
  std::vector<double> share;  ///< per adapter
};

struct TaskRouting {
  std::string task;
  std::vector<LayerShare> layers;  ///< the same layers for all tasks of a library
};

/// How one method routes over one library.
struct LibraryRouting {
  std::string library;
  std::string method;  ///< Method::name; empty in results that do not say
  std::vector<std::string> adapters;
  std::vector<TaskRouting> tasks;
};

struct Sample {
  std::string task, id, method, input, prediction;
  std::vector<std::string> targets;
  std::vector<std::pair<std::string, double>> metrics;
};

struct Results {
  std::string created, command;
  std::string base_name, fingerprint, dtype;
  std::int64_t parameters = 0;
  std::vector<std::pair<std::string, std::string>> machine;
  nlohmann::json settings;
  std::vector<Task> tasks;
  std::vector<Method> methods;
  std::vector<Metric> metrics;
  std::vector<SummaryRow> summary;
  std::vector<TaskRow> per_task;
  std::vector<Curve> training;
  Clusters clusters;
  std::vector<LibraryRouting> routing;
  std::vector<Sample> samples;

  const Method& method(std::string_view name) const;
  const Metric& metric(std::string_view name) const;
  const Task* find_task(std::string_view name) const;
  const SummaryRow* find_summary(std::string_view section, std::string_view method, std::string_view metric) const;
  /// "train", "instruction" and "choice" first, then any others in order of appearance; those with
  /// a summary only.
  std::vector<std::string> sections() const;
  /// The metrics that the summary of a section has, in the order of `metrics`: the first is the
  /// section's main one.
  std::vector<std::string> metrics_of(std::string_view section) const;
  /// True if the method's answers are worse than the base's: Rouge-L is lower, by an interval without 0, or is 0.
  bool ruins_answers(std::string_view section, std::string_view method) const;
  /// The best method of a section that is no oracle and does not ruin the answers; nullptr if there is none or nobody
  /// said which way is better.
  const SummaryRow* best(std::string_view section, std::string_view metric) const;
};

/// "Training tasks" for "train", and so on; other sections keep their name.
std::string section_label(std::string_view section);

/// Parses results of version 1. All members but "quiver_results" are optional; methods and metrics
/// that rows name but nobody describes are described by their name. `origin` names the source in
/// messages. Throws kUnsupported for another version, kBadFormat for anything of a wrong type or
/// size.
Results parse_results(const nlohmann::json& document, std::string_view origin);

}  // namespace quiver::report
