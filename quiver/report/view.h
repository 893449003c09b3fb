// What a report asks of results: which sections and metrics there are, and what is best.
#pragma once

#include <algorithm>
#include <functional>
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
using results::LayerShare;
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
/// The decimals that suit the means of one metric of a section.
int decimals_of(const Results& results, std::string_view section, std::string_view metric);
/// The methods that the summary has, of one section if one is named.
std::vector<const Method*> methods_of(const Results& results, std::string_view section = "");
std::int64_t count_tasks(const Results& results, std::string_view kind);
/// The difference that a report shows. Of held-out tasks the one by task, where there is one: what is said of them is meant of others like
/// them, too.
const std::optional<Difference>& difference_of(const SummaryRow& row);
/// "better" or "worse", or "unsure" where the interval includes 0 or nobody said which way is better: a class of the style sheet.
std::string verdict(const Metric& metric, const Difference& difference);
/// True if the method's answers are worse than the base's: Rouge-L is lower, by an interval without 0, or is 0.
bool ruins_answers(const Results& results, std::string_view section, std::string_view method);
/// The best method of a section that is no oracle and does not ruin the answers; nullptr if there is none or nobody said which way is
/// better.
const SummaryRow* best_of(const Results& results, std::string_view section, std::string_view metric);

/// The positions of the `count` largest values, largest first, NaN left out.
std::vector<std::size_t> largest(const std::vector<double>& values, std::size_t count);
/// What `of` gives for each item, once, in order of appearance.
template <typename Items, typename Of>
std::vector<std::string> distinct(const Items& items, Of of) {
  std::vector<std::string> found;
  for (const auto& item : items) {
    const std::string value = std::invoke(of, item);
    if (std::ranges::find(found, value) == found.end()) found.push_back(value);
  }
  return found;
}

}  // namespace quiver::report
