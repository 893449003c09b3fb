// What a report asks of results: which sections and metrics there are, and what is best.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/results/results.h"

namespace quiver::report {

using results::Better;
using results::Clusters;
using results::Curve;
using results::Difference;
using results::LibraryRouting;
using results::Method;
using results::Metric;
using results::Results;
using results::Sample;
using results::SummaryRow;
using results::Task;
using results::TaskRouting;
using results::TaskRow;

/// The metric of generated answers.
inline constexpr std::string_view kAnswerMetric = "rouge_l";

/// "Training tasks" for "train", and so on; other sections keep their name.
std::string section_label(std::string_view section);
/// "train", "instruction" and "choice" first, then any others in order of appearance; those with a summary only.
std::vector<std::string> sections_of(const Results& results);
/// The metrics that the summary of a section has, in the order of `results.metrics`: the first is the section's main one.
std::vector<std::string> metrics_of(const Results& results, std::string_view section);
/// The difference that a report shows. Of held-out tasks the one by task, where there is one: what is said of them is meant of others like
/// them, too.
const std::optional<Difference>& difference_of(const SummaryRow& row);
/// True if the method's answers are worse than the base's: Rouge-L is lower, by an interval without 0, or is 0.
bool ruins_answers(const Results& results, std::string_view section, std::string_view method);
/// The best method of a section that is no oracle and does not ruin the answers; nullptr if there is none or nobody said which way is
/// better.
const SummaryRow* best_of(const Results& results, std::string_view section, std::string_view metric);

}  // namespace quiver::report
