#include "quiver/results/lm_eval_form.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <string_view>

#include "quiver/base/hash.h"
#include "quiver/io/json.h"
#include "quiver/results/text_scores.h"

namespace quiver::results {
namespace {

using nlohmann::json;

json number_or_na(double value) { return std::isfinite(value) ? json(value) : json("N/A"); }

std::string with(std::string text, char from, char to) {
  std::ranges::replace(text, from, to);
  return text;
}

/// A model's name as the harness makes a folder's of it.
std::string sanitized(const std::string& name) {
  std::string plain;
  for (const char c : name) {
    const bool is_special = std::string_view("\"<>:/|\\?*[]").find(c) != std::string_view::npos;
    if (!is_special) {
      plain += c;
    } else if (!plain.ends_with("__")) {
      plain += "__";
    }
  }
  return plain;
}

/// The harness' name of a metric: its task files have none of ours with another meaning.
std::string metric_key(const std::string& metric) { return metric + ",none"; }
std::string error_key(const std::string& metric) { return metric + "_stderr,none"; }

const Task& task_of(const Results& results, const std::string& name) { return *results.find_task(name); }

/// The likelihood of each choice, or the answer. Texts all through, as the harness writes them: readers of tables want columns of one type.
json responses_of(const Sample& sample) {
  auto responses = json::array();
  for (std::size_t i = 0; i < sample.log_probs.size(); ++i) {
    const double log_prob = sample.log_probs[i];
    const bool is_greedy = i < sample.is_greedy.size() && sample.is_greedy[i] != 0;
    responses.push_back({std::isfinite(log_prob) ? json(log_prob).dump() : std::string("N/A"), is_greedy ? "True" : "False"});
  }
  if (sample.prediction) responses.push_back(*sample.prediction);
  if (sample.log_likelihood) responses.push_back(number_or_na(*sample.log_likelihood));
  return responses;
}

/// Seconds since 1970 of "2026-03-01T12:00:00Z"; null for another text.
json seconds_of(const std::string& created) {
  std::tm utc{};
  const char* end = strptime(created.c_str(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return end == nullptr || *end != '\0' ? json() : json(static_cast<double>(timegm(&utc)));
}

json target_of(const Sample& sample) {
  if (sample.label) return std::to_string(*sample.label);
  return sample.targets.empty() ? "" : sample.targets.front();
}

}  // namespace

json lm_eval_results(const Results& results, const std::string& method) {
  json scores = json::object(), configs = json::object(), versions = json::object(), shots = json::object(), counts = json::object(),
       directions = json::object(), fingerprints = json::object(), cut = json::object();
  for (const auto& row : results.per_task) {
    if (row.method != method) continue;
    auto& entry = scores[row.task];
    entry["alias"] = row.task;
    entry["name"] = row.task;
    entry[metric_key(row.metric)] = number_or_na(row.mean);
    entry[error_key(row.metric)] = number_or_na(row.standard_error);
    entry["sample_len"] = row.count;
    if (const auto better = results.metric(row.metric).better; better != Better::kUnknown)
      directions[row.task][row.metric] = better == Better::kHigher;
  }
  for (const auto& [name, entry] : scores.items()) {
    const auto& task = task_of(results, name);
    configs[name] = task.config;
    configs[name]["task"] = name;
    configs[name]["num_fewshot"] = task.num_fewshot;
    versions[name] = task.version;
    shots[name] = task.num_fewshot;
    counts[name] = {{"original", task.num_available}, {"effective", task.num_samples}};
    fingerprints[name] = task.fingerprint;
    if (task.num_cut > 0) cut[name] = task.num_cut;
  }
  const auto& described = results.method(method);
  return {{"results", scores},
          {"group_subtasks", json::object()},
          {"configs", configs},
          {"versions", versions},
          {"n-shot", shots},
          {"higher_is_better", directions},
          {"n-samples", counts},
          {"config",
           {{"model", "quiver"},
            {"model_args", "pretrained=" + results.base.name + ",method=" + method},
            {"model_num_parameters", results.base.parameters},
            {"model_dtype", results.base.dtype},
            {"model_sha", results.base.content}}},
          {"date", seconds_of(results.created)},
          {"model_name", results.base.name},
          {"model_name_sanitized", sanitized(results.base.name)},
          {"model_source", "quiver"},
          {"quiver",
           {{"method", {{"name", method}, {"label", described.label}, {"description", described.description}}},
            {"base", {{"fingerprint", results.base.fingerprint}, {"content", results.base.content}}},
            {"data", fingerprints},
            {"rows cut to the context", cut},
            {"settings", results.settings}}}};
}

std::vector<json> lm_eval_samples(const Results& results, const std::string& method, const std::string& task,
                                  const std::map<std::string, SampleTexts>& texts) {
  std::vector<json> lines;
  for (const auto& sample : results.samples) {
    if (sample.method != method || sample.task != task) continue;
    json line = {{"doc_id", lines.size()},
                 {"id", sample.id},
                 {"doc", json::object()},
                 {"target", target_of(sample)},
                 {"arguments", json::object()},
                 {"resps", json::array()},
                 {"filtered_resps", responses_of(sample)},
                 {"filter", "none"},
                 {"metrics", json::array()}};
    for (const auto& response : line["filtered_resps"]) line["resps"].push_back(json::array({response}));
    if (const auto found = texts.find(sample.id); found != texts.end()) {
      line["doc"] = found->second.row;
      for (std::size_t i = 0; i < found->second.arguments.size(); ++i) {
        const auto& [context, rest] = found->second.arguments[i];
        line["arguments"]["gen_args_" + std::to_string(i)] = {{"arg_0", context}};
        if (!rest.is_null()) line["arguments"]["gen_args_" + std::to_string(i)]["arg_1"] = rest;
      }
      if (!found->second.arguments.empty()) line["prompt_hash"] = sha256_hex(found->second.arguments[0].first);
    }
    line["doc_hash"] = sha256_hex(io::dump_json(line["doc"], task));
    line["target_hash"] = sha256_hex(line["target"].get<std::string>());
    for (const auto& [name, value] : sample.metrics) {
      line["metrics"].push_back(name);
      line[name] = number_or_na(value);
      const auto* of_text = find_text_metric(name);  // there the harness has log-likelihood and length
      if (of_text != nullptr && sample.log_likelihood) line[name] = {*sample.log_likelihood, (sample.*of_text->length).value_or(0)};
    }
    if (!sample.outcome.empty()) line["outcome"] = sample.outcome;
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string lm_eval_results_file(const Results& results) { return "results_" + with(results.created, ':', '-') + ".json"; }

std::string lm_eval_samples_file(const Results& results, const std::string& task) {
  const auto stem = with(task, '/', '_');
  int place = 1;  // among the tasks whose files would be called the same
  for (const auto& other : results.tasks) {
    if (other.name == task) break;
    if (with(other.name, '/', '_') == stem) ++place;
  }
  return format("samples_{}{}_{}.jsonl", stem, place == 1 ? "" : format("-{}", place), with(results.created, ':', '-'));
}

}  // namespace quiver::results
