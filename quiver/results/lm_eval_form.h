// Results in the shape of lm-evaluation-harness 0.4.13, for what reads its files.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "quiver/results/results.h"

namespace quiver::results {

/// What was asked for a sample: the requests as texts, and the row.
struct SampleTexts {
  std::vector<std::pair<std::string, nlohmann::json>> arguments;  ///< context, and a continuation or settings of generation; null of a text
  nlohmann::json row = nlohmann::json::object();
};

/// The document results_DATE.json of one method: "results" with "acc,none" and "acc_stderr,none", "configs", "versions", "n-shot",
/// "n-samples", "higher_is_better", "config"; what the harness does not know stands in "quiver". Throws kInternal for an unknown method.
nlohmann::json lm_eval_results(const Results& results, const std::string& method);

/// The lines of samples_TASK_DATE.jsonl of one method: "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "metrics" and
/// each metric. `texts` are by the ids of samples; a sample without texts has no arguments.
std::vector<nlohmann::json> lm_eval_samples(const Results& results, const std::string& method, const std::string& task,
                                            const std::map<std::string, SampleTexts>& texts);

/// The names of the files, without a folder. "/" of a task's name becomes "_", ":" of the time becomes "-". Where two tasks
/// would share a file, the later one has "-2" behind its name.
std::string lm_eval_results_file(const Results& results);
std::string lm_eval_samples_file(const Results& results, const std::string& task);

}  // namespace quiver::results
