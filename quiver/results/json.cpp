// Results as a document, and a document checked once, completely, so that what computes with it trusts it. Every member is named once,
// in `members`, for reading and for writing.
#include <algorithm>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/results/json_archive.h"
#include "quiver/results/results.h"

namespace quiver::results {
namespace {

using namespace archive;  // NOLINT(google-build-using-namespace): the parts of this file

void check_same_layers(const TaskRouting& task, const TaskRouting& first, const std::string& where) {
  const bool same = std::equal(task.layers.begin(), task.layers.end(), first.layers.begin(), first.layers.end(),
                               [](const LayerShare& a, const LayerShare& b) { return a.layer == b.layer; });
  if (!same) {
    fail(ErrorKind::kBadFormat,
         "{}: task '{}' has {} layers, which are not the {} layers of task '{}' in the same library; write the same layers, in the same "
         "order, for every task",
         where, task.task, task.layers.size(), first.layers.size(), first.task);
  }
}

void read_routing(const Reader& reader, std::vector<LibraryRouting>& routing) {
  reader.for_each("routing", [&](const Reader& item) {
    LibraryRouting read;
    item.name("library", read.library);
    item.texts("adapters", read.adapters);
    item.text("method", read.method);
    auto library = std::ranges::find_if(
        routing, [&](const LibraryRouting& known) { return known.library == read.library && known.method == read.method; });
    if (library == routing.end()) library = routing.insert(routing.end(), read);
    if (library->adapters != read.adapters) {
      fail(ErrorKind::kBadFormat,
           "{}: library '{}' has {} adapters here and {} before, or in another order; write the same list for every task", item.where,
           read.library, read.adapters.size(), library->adapters.size());
    }
    TaskRouting task;
    item.name("task", task.task);
    item.for_each("layers", [&](const Reader& layer) {
      members(layer, task.layers.emplace_back());
      check_size(task.layers.back().share.size(), read.adapters.size(), layer.where, "\"share\"", "adapters");
    });
    if (!library->tasks.empty()) check_same_layers(task, library->tasks.front(), item.where);
    library->tasks.push_back(std::move(task));
  });
}

json routing_json(const std::vector<LibraryRouting>& routing) {
  auto list = json::array();
  for (const auto& library : routing) {
    for (const auto& task : library.tasks) {
      list.push_back({{"library", library.library},
                      {"method", library.method},
                      {"task", task.task},
                      {"adapters", library.adapters},
                      {"layers", list_of(task.layers, Writer::written<LayerShare>)}});
    }
  }
  return list;
}

void read_samples(const Reader& reader, Results& results) {
  reader.for_each("samples", [&](const Reader& item) {
    auto& sample = results.samples.emplace_back();
    members(item, sample);
    if (has(item.object, "prediction")) item.loose("prediction", sample.prediction.emplace());
    for (const auto& metric : results.metrics) {
      const auto found = item.object.find(metric.name);
      if (found == item.object.end() || !(found->is_number() || found->is_null())) continue;
      item.number(metric.name.c_str(), sample.metrics.emplace_back(metric.name, kMissing).second);
    }
  });
}

json sample_json(const Sample& sample) {
  auto item = Writer::written(sample);
  for (const auto& [name, value] : sample.metrics) item[name] = number(value);
  if (sample.prediction) item["prediction"] = *sample.prediction;
  return item;
}

/// Describes by their name the methods and metrics that rows use and nobody described.
void describe_the_rest(Results& results) {
  std::set<std::string, std::less<>> methods, metrics;
  for (const auto& method : results.methods) methods.insert(method.name);
  for (const auto& metric : results.metrics) metrics.insert(metric.name);
  const auto use = [&](const std::string& method, const std::string& metric) {
    if (methods.insert(method).second) {
      const bool oracle = method.find("oracle") != std::string::npos;
      results.methods.push_back({.name = method, .label = method, .description = "", .is_oracle = oracle});
    }
    if (!metric.empty() && metrics.insert(metric).second) {
      results.metrics.push_back({.name = metric, .label = metric, .unit = "", .better = Better::kUnknown});
    }
  };
  for (const auto& row : results.summary) use(row.method, row.metric);
  for (const auto& row : results.per_task) use(row.method, row.metric);
  for (const auto& pair : results.comparisons) use(pair.method, pair.metric), use(pair.other, "");
  for (const auto& sample : results.samples) use(sample.method, "");
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

}  // namespace

std::vector<double> numbers_of(const json& object, std::string_view key, const std::string& origin) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return numbers_in(*found, format("{}.{}", origin, key));
}

Clusters clusters_of(const json& document, const std::string& origin) {
  Clusters clusters;
  if (!has(document, "clusters")) return clusters;
  const Reader reader{io::require_object(document, "clusters", origin), origin + ": clusters"};
  const auto& [object, where] = reader;
  reader.texts("adapters", clusters.adapters);
  for (const auto& label : numbers_of(object, "labels", where)) {
    if (!(std::abs(label) <= kMaxLabel) || label != std::floor(label)) {
      fail(ErrorKind::kBadFormat, "{}.labels holds {}; expected whole numbers up to {}", where, label, kMaxLabel);
    }
    clusters.labels.push_back(static_cast<std::int64_t>(label));
  }
  const auto n = clusters.adapters.size();
  check_size(clusters.labels.size(), n, where, "\"labels\"", "adapters");
  if (!has(object, "similarity")) return clusters;
  const auto& rows = io::require_array(object, "similarity", where);
  if (rows.empty()) return clusters;
  check_size(rows.size(), n, where, "\"similarity\"", "adapters");
  for (std::size_t i = 0; i < n; ++i) {
    const auto place = format("{}.similarity[{}]", where, i);
    const auto row = numbers_in(rows[i], place);
    check_size(row.size(), n, place, "the row", "adapters");
    clusters.similarity.insert(clusters.similarity.end(), row.begin(), row.end());
  }
  return clusters;
}

Results from_json(const json& document, std::string_view origin_view) {
  const std::string origin(origin_view);
  if (!document.is_object() || !document.contains("quiver_results")) {
    fail(ErrorKind::kBadFormat, "{} is not a Quiver results file: it has no \"quiver_results\" version", origin);
  }
  const auto version = io::require_int(document, "quiver_results", origin);
  if (version != kVersion) {
    fail(ErrorKind::kUnsupported,
         "{} holds results of version {}; this program reads version {} (was it written by another version of Quiver?)", origin, version,
         kVersion);
  }
  Results results;
  const Reader reader{document, origin};
  if (has(document, "base")) members(Reader{io::require_object(document, "base", origin), origin + ": base"}, results.base);
  if (has(document, "machine")) {
    const Reader machine{io::require_object(document, "machine", origin), origin};
    for (const auto& [key, value] : machine.object.items()) machine.loose(key.c_str(), results.machine.emplace_back(key, "").second);
  }
  if (document.contains("settings")) results.settings = document["settings"];
  members(reader, results);
  results.clusters = clusters_of(document, origin);
  read_routing(reader, results.routing);
  read_samples(reader, results);
  describe_the_rest(results);
  return results;
}

json to_json(const Results& results) {
  auto document = Writer::written(results);
  document.update({{"quiver_results", kVersion},
                   {"base", Writer::written(results.base)},
                   {"machine", json::object()},
                   {"settings", results.settings},
                   {"routing", routing_json(results.routing)},
                   {"samples", list_of(results.samples, sample_json)}});
  for (const auto& [key, value] : results.machine) document["machine"][key] = value;
  if (!results.clusters.adapters.empty()) document["clusters"] = clusters_json(results.clusters);
  return document;
}

}  // namespace quiver::results
