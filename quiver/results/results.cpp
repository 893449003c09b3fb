#include "quiver/results/results.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

using nlohmann::json;

template <typename T>
const T& find_named(const std::vector<T>& values, std::string_view name, const char* what) {
  const auto found = std::ranges::find(values, name, &T::name);
  if (found == values.end()) fail(ErrorKind::kInternal, "the results have no {} '{}'", what, name);
  return *found;
}

json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

/// A number of things, without a decimal point.
json whole_number(double value) {
  constexpr double kMaxExact = 9007199254740992.0;  // 2^53
  const bool is_whole = value == std::floor(value) && std::abs(value) <= kMaxExact;
  return is_whole ? json(static_cast<std::int64_t>(value)) : number(value);
}

template <typename T, typename Write>
json list_of(const std::vector<T>& values, Write write) {
  auto list = json::array();
  for (const auto& value : values) list.push_back(write(value));
  return list;
}

const char* better_name(Better better) {
  switch (better) {
    case Better::kLower: return "lower";
    case Better::kHigher: return "higher";
    case Better::kUnknown: break;
  }
  return "";
}

json task_json(const Task& task) {
  json item = {{"name", task.name}, {"kind", task.kind}, {"num_samples", task.num_samples}};
  if (!task.group.empty()) item["group"] = task.group;
  return item;
}

json difference_json(const std::optional<Difference>& difference) {
  if (!difference) return nullptr;
  const auto& [mean, low, high, count] = *difference;
  return {{"mean", number(mean)}, {"low", number(low)}, {"high", number(high)}, {"n", count}};
}

json summary_json(const SummaryRow& row) {
  return {{"section", row.section},
          {"method", row.method},
          {"metric", row.metric},
          {"mean", number(row.mean)},
          {"stderr", number(row.standard_error)},
          {"n", row.count},
          {"difference", difference_json(row.difference)},
          {"difference_by_task", difference_json(row.difference_by_task)},
          {"recovered", row.recovered ? number(*row.recovered) : json(nullptr)}};
}

json task_row_json(const TaskRow& row) {
  return {{"task", row.task},         {"method", row.method}, {"metric", row.metric},
          {"mean", number(row.mean)}, {"n", row.count},       {"stderr", number(row.standard_error)}};
}

json curve_json(const Curve& curve) {
  return {{"adapter", curve.adapter},
          {"kind", curve.kind},
          {"steps", list_of(curve.steps, whole_number)},
          {"loss", list_of(curve.loss, number)},
          {"tokens", whole_number(curve.tokens)},
          {"rows", whole_number(curve.rows)},
          {"seconds", number(curve.seconds)},
          {"tokens_per_second", number(curve.tokens_per_second)}};
}

json clusters_json(const Clusters& clusters) {
  json object = {{"adapters", clusters.adapters}, {"labels", clusters.labels}};
  if (clusters.similarity.empty()) return object;
  auto rows = json::array();
  const auto size = clusters.adapters.size();
  for (std::size_t i = 0; i < size; ++i) {
    auto row = json::array();
    for (std::size_t j = 0; j < size; ++j) row.push_back(number(clusters.similarity[i * size + j]));
    rows.push_back(std::move(row));
  }
  object["similarity"] = std::move(rows);
  return object;
}

json routing_json(const std::vector<LibraryRouting>& routing) {
  auto list = json::array();
  for (const auto& library : routing) {
    for (const auto& task : library.tasks) {
      auto layers = list_of(task.layers, [](const LayerShare& layer) {
        return json{{"layer", layer.layer}, {"share", list_of(layer.share, number)}};
      });
      list.push_back({{"library", library.library},
                      {"method", library.method},
                      {"task", task.task},
                      {"adapters", library.adapters},
                      {"layers", std::move(layers)}});
    }
  }
  return list;
}

json sample_json(const Sample& sample) {
  json item = {{"section", sample.section}, {"method", sample.method}, {"task", sample.task}, {"id", sample.id}};
  for (const auto& [name, value] : sample.metrics) item[name] = number(value);
  if (sample.num_tokens) item["num_tokens"] = *sample.num_tokens;
  if (sample.prediction) item["prediction"] = *sample.prediction;
  if (!sample.targets.empty()) item["targets"] = sample.targets;
  if (!sample.log_probs.empty()) item["log_probs"] = list_of(sample.log_probs, number);
  if (sample.label) item["label"] = *sample.label;
  return item;
}

}  // namespace

bool Metric::prefers(double a, double b) const { return (better == Better::kLower && a < b) || (better == Better::kHigher && a > b); }

const Method& Results::method(std::string_view name) const { return find_named(methods, name, "method"); }
const Metric& Results::metric(std::string_view name) const { return find_named(metrics, name, "metric"); }

const Task* Results::find_task(std::string_view name) const {
  const auto found = std::ranges::find(tasks, name, &Task::name);
  return found == tasks.end() ? nullptr : &*found;
}

const SummaryRow* Results::find_summary(std::string_view section, std::string_view method, std::string_view metric) const {
  const auto found = std::ranges::find_if(
      summary, [&](const SummaryRow& row) { return row.section == section && row.method == method && row.metric == metric; });
  return found == summary.end() ? nullptr : &*found;
}

std::string dtype_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNames = {
      {{"Float", "float32"}, {"BFloat16", "bfloat16"}, {"Half", "float16"}, {"Double", "float64"}}};
  const auto* found = std::ranges::find(kNames, name, &std::pair<std::string_view, std::string_view>::first);
  return std::string(found == kNames.end() ? name : found->second);
}

json to_json(const Results& results) {
  const auto& base = results.base;
  json document = {
      {"quiver_results", kVersion},
      {"created", results.created},
      {"base",
       {{"name", base.name},
        {"fingerprint", base.fingerprint},
        {"content", base.content},
        {"parameters", base.parameters},
        {"dtype", base.dtype}}},
      {"machine", json::object()},
      {"settings", results.settings},
      {"tasks", list_of(results.tasks, task_json)},
      {"methods",
       list_of(
           results.methods,
           [](const Method& method) {
             return json{{"name", method.name}, {"label", method.label}, {"description", method.description}, {"oracle", method.is_oracle}};
           })},
      {"metrics",
       list_of(results.metrics,
               [](const Metric& metric) {
                 return json{{"name", metric.name}, {"label", metric.label}, {"better", better_name(metric.better)}, {"unit", metric.unit}};
               })},
      {"summary", list_of(results.summary, summary_json)},
      {"per_task", list_of(results.per_task, task_row_json)},
      {"training", list_of(results.training, curve_json)},
      {"routing", routing_json(results.routing)},
      {"samples", list_of(results.samples, sample_json)}};
  for (const auto& [key, value] : results.machine) document["machine"][key] = value;
  if (!results.clusters.adapters.empty()) document["clusters"] = clusters_json(results.clusters);
  return document;
}

}  // namespace quiver::results
