// The results of an evaluation: the document of docs/results.md as values, and as JSON. Free of libtorch, so that a report can be made
// anywhere.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quiver/results/statistics.h"

namespace quiver::results {

/// The version of the document that this code writes, and the only one it reads.
inline constexpr std::int64_t kVersion = 1;
/// Numbers of a larger size are refused: charts compute with differences and squares of numbers.
inline constexpr double kMaxNumber = 1e100;
/// Labels of clusters of a larger size are refused.
inline constexpr double kMaxLabel = 1e9;

// In these, a number that does not exist, that a document leaves out or that is not finite is NaN; in JSON it is null.

struct Base {
  std::string name;
  std::string fingerprint;
  std::string content;  ///< its content hash
  std::int64_t parameters = 0;
  std::string dtype;  ///< as dtype_name gives it
};

struct Task {
  std::string name;
  std::string kind;  ///< "train", "instruction", "choice", "answer", "program", "text": the section that the task belongs to
  std::int64_t num_samples = 0;
  std::string group;                                 ///< its cluster, or empty
  std::string version = {};                          ///< of its prompts and metrics, or empty
  std::int64_t num_available = 0;                    ///< rows of which a limit drew num_samples
  std::int64_t num_fewshot = 0;                      ///< solved examples before each prompt
  std::int64_t num_cut = 0;                          ///< rows that lost tokens at their left, since the context is too short
  std::string fingerprint = {};                      ///< of its rows' tokens, or empty
  nlohmann::json config = nlohmann::json::object();  ///< how its prompts are made
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

struct SummaryRow {
  std::string section, method, metric;
  double mean = 0;
  double standard_error = 0;
  std::int64_t count = 0;
  std::optional<Difference> difference;          ///< with the interval of other rows
  std::optional<Difference> difference_by_task;  ///< with the interval of other tasks
  std::optional<double> recovered;               ///< share of the way from the mean of the adapters to the oracle
};

/// What is known of a difference beyond the samples: of other rows, or of other tasks.
struct PairedTest {
  double low = 0, high = 0;                            ///< the 95 % interval of this pair alone; infinite for one row, or one task
  double simultaneous_low = 0, simultaneous_high = 0;  ///< the 95 % intervals that hold for all pairs of the section and metric at once
  std::string test;                                    ///< "mcnemar", "paired t", "clustered t": where p comes from
  double p = 0;                                        ///< two-sided, of this pair alone
  double corrected_p = 0;                              ///< Holm's, over all pairs of the section and metric

  /// Do the intervals for all pairs at once and the corrected p-value both tell the two apart?
  bool is_told_apart() const { return (simultaneous_low > 0 || simultaneous_high < 0) && corrected_p < 0.05; }
};

/// One method against another on the samples that both have.
struct Comparison {
  std::string section, metric, method, other;
  double mean = 0;  ///< of method - other
  std::int64_t count = 0;
  std::optional<PairedTest> by_row, by_task;
};

/// Something in the samples that makes figures say less than they seem to.
struct Warning {
  std::string kind;  ///< "near chance", "empty answers", "equal answers"
  std::string section, method, task;
  std::string text;  ///< a sentence without the names, with the figures
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
  std::vector<double> similarity;     ///< N x N, row by row; empty if it is not known
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

/// What one method made of one sample.
struct Sample {
  std::string section, method, task, id;
  std::vector<std::pair<std::string, double>> metrics;  ///< in the order of Results::metrics
  std::optional<std::int64_t> num_tokens;               ///< of the target
  std::optional<std::string> prediction;
  std::vector<std::string> targets;
  std::vector<double> log_probs;                               ///< of the choices
  std::optional<std::int64_t> label;                           ///< the right choice
  std::string outcome = {};                                    ///< of a generated program: "passed", or why not
  std::optional<double> log_likelihood = {};                   ///< of a text, in nats
  std::optional<std::int64_t> num_words = {}, num_bytes = {};  ///< the text's length
  std::vector<double> is_greedy = {};                          ///< of the choices: 1 where every token is the likeliest, else 0
};

struct Results {
  std::string created;
  Base base;
  std::vector<std::pair<std::string, std::string>> machine;
  nlohmann::json settings = nlohmann::json::object();  ///< by group, whatever there is
  std::vector<Task> tasks;
  std::vector<Method> methods;
  std::vector<Metric> metrics;
  std::vector<SummaryRow> summary;
  std::vector<Comparison> comparisons;
  std::vector<Warning> warnings;
  std::vector<TaskRow> per_task;
  std::vector<Curve> training;
  Clusters clusters;
  std::vector<LibraryRouting> routing;
  std::vector<Sample> samples;

  /// These throw kInternal for a name that the results do not describe: from_json leaves none.
  const Method& method(std::string_view name) const;
  const Metric& metric(std::string_view name) const;
  /// nullptr if there is none.
  const Task* find_task(std::string_view name) const;
  const SummaryRow* find_summary(std::string_view section, std::string_view method, std::string_view metric) const;
};

/// "bfloat16" for "BFloat16", the word of libtorch that earlier results hold; other names stay as they are.
std::string dtype_name(std::string_view name);

/// The document. from_json gives back equal results.
nlohmann::json to_json(const Results& results);

/// Reads a document of version 1, and checks all of it. Every member but "quiver_results" may be missing or null; members that nobody knows
/// are ignored. Methods and metrics that rows name and nobody describes are described by their name. `origin` names the source in messages.
/// Throws kUnsupported for another version, kBadFormat for anything of a wrong type or size.
Results from_json(const nlohmann::json& document, std::string_view origin);

/// Reads the member `key`, a list of numbers; empty if it is missing or null. Throws kBadFormat for anything else, and for numbers that
/// from_json refuses.
std::vector<double> numbers_of(const nlohmann::json& object, std::string_view key, const std::string& origin);
/// Reads the member "clusters" as from_json does.
Clusters clusters_of(const nlohmann::json& object, const std::string& origin);

}  // namespace quiver::results
