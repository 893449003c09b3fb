// A document of results, checked once, completely, so that what computes with it trusts it.

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/results/results.h"

namespace quiver::results {
namespace {

using nlohmann::json;

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

std::string text_of(const json& object, std::string_view key, const std::string& where) {
  return io::find_string(object, key, where).value_or("");
}

std::int64_t count_of(const json& object, std::string_view key, const std::string& where) {
  return io::find_int(object, key, where).value_or(0);
}

/// NaN for a number that is not finite.
double checked_number(double value, const std::string& place) {
  if (!std::isfinite(value)) return kMissing;
  if (std::abs(value) > kMaxNumber) fail(ErrorKind::kBadFormat, "{} is {}; at most {} in size is read", place, value, kMaxNumber);
  return value;
}

double number_of(const json& object, std::string_view key, const std::string& where) {
  const auto value = io::find_double(object, key, where);
  return value ? checked_number(*value, format("{}.{}", where, key)) : kMissing;
}

/// Calls read(element, where) for each object of the array `key`, if there is one.
template <typename Read>
void for_each(const json& object, std::string_view key, const std::string& where, Read read) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return;
  const auto& array = io::require_array(object, key, where);
  for (std::size_t i = 0; i < array.size(); ++i) {
    const auto place = format("{}: {}[{}]", where, key, i);
    if (!array[i].is_object()) {
      fail(ErrorKind::kBadFormat, "{} is of type {}; expected an object", place, array[i].type_name());
    }
    read(array[i], place);
  }
}

std::vector<double> numbers_in(const json& array, const std::string& where) {
  if (!array.is_array()) {
    fail(ErrorKind::kBadFormat, "{} is of type {}; expected a list of numbers", where, array.type_name());
  }
  std::vector<double> numbers;
  numbers.reserve(array.size());
  for (const auto& item : array) {
    if (!item.is_number() && !item.is_null()) {
      fail(ErrorKind::kBadFormat, "{}[{}] is of type {}; expected a number", where, numbers.size(), item.type_name());
    }
    numbers.push_back(item.is_null() ? kMissing : checked_number(item.get<double>(), format("{}[{}]", where, numbers.size())));
  }
  return numbers;
}

std::vector<std::string> strings_of(const json& object, std::string_view key, const std::string& where) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return {};
  std::vector<std::string> strings;
  for (const auto& item : io::require_array(object, key, where)) {
    if (!item.is_string()) {
      fail(ErrorKind::kBadFormat, "{}.{}[{}] is of type {}; expected a string", where, key, strings.size(), item.type_name());
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

void check_size(std::size_t got, std::size_t expected, const std::string& where, const char* what, const char* of) {
  if (got != expected) {
    fail(ErrorKind::kBadFormat, "{}: {} has {} entries for {} {}; expected one each", where, what, got, expected, of);
  }
}

/// A member that may be a string or a number, as text.
std::string loose_text(const json& object, std::string_view key) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  return found->dump(-1, ' ', false, json::error_handler_t::replace);
}

void read_head(const json& document, const std::string& origin, Results& results) {
  results.created = text_of(document, "created", origin);
  if (document.contains("base") && !document["base"].is_null()) {
    const auto& base = io::require_object(document, "base", origin);
    const auto where = origin + ": base";
    results.base = {.name = text_of(base, "name", where),
                    .fingerprint = text_of(base, "fingerprint", where),
                    .content = text_of(base, "content", where),
                    .parameters = count_of(base, "parameters", where),
                    .dtype = dtype_name(text_of(base, "dtype", where))};
  }
  if (document.contains("machine") && !document["machine"].is_null()) {
    const auto& machine = io::require_object(document, "machine", origin);
    for (const auto& [key, value] : machine.items()) results.machine.emplace_back(key, loose_text(machine, key));
  }
  if (document.contains("settings")) results.settings = document["settings"];
}

void read_catalogue(const json& document, const std::string& origin, Results& results) {
  for_each(document, "tasks", origin, [&](const json& item, const std::string& where) {
    results.tasks.push_back({.name = io::require_string(item, "name", where),
                             .kind = text_of(item, "kind", where),
                             .num_samples = count_of(item, "num_samples", where),
                             .group = loose_text(item, "group")});
  });
  for_each(document, "methods", origin, [&](const json& item, const std::string& where) {
    const auto name = io::require_string(item, "name", where);
    results.methods.push_back({.name = name,
                               .label = io::find_string(item, "label", where).value_or(name),
                               .description = text_of(item, "description", where),
                               .is_oracle = io::find_bool(item, "oracle", where).value_or(name.find("oracle") != std::string::npos)});
  });
  for_each(document, "metrics", origin, [&](const json& item, const std::string& where) {
    const auto name = io::require_string(item, "name", where);
    const auto better = text_of(item, "better", where);
    if (better != "lower" && better != "higher" && !better.empty()) {
      fail(ErrorKind::kBadFormat, "{}: \"better\" is '{}'; expected 'lower' or 'higher'", where, better);
    }
    results.metrics.push_back({.name = name,
                               .label = io::find_string(item, "label", where).value_or(name),
                               .unit = text_of(item, "unit", where),
                               .better = better == "lower"    ? Better::kLower
                                         : better == "higher" ? Better::kHigher
                                                              : Better::kUnknown});
  });
}

std::optional<Difference> difference_of(const json& object, std::string_view key, const std::string& origin) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return std::nullopt;
  const auto& difference = io::require_object(object, key, origin);
  const auto where = format("{}.{}", origin, key);
  return Difference{.mean = number_of(difference, "mean", where),
                    .low = number_of(difference, "low", where),
                    .high = number_of(difference, "high", where),
                    .count = count_of(difference, "n", where)};
}

void read_scores(const json& document, const std::string& origin, Results& results) {
  for_each(document, "summary", origin, [&](const json& item, const std::string& where) {
    SummaryRow row{.section = io::require_string(item, "section", where),
                   .method = io::require_string(item, "method", where),
                   .metric = io::require_string(item, "metric", where),
                   .mean = number_of(item, "mean", where),
                   .standard_error = number_of(item, "stderr", where),
                   .count = count_of(item, "n", where),
                   .difference = difference_of(item, "difference", where),
                   .difference_by_task = difference_of(item, "difference_by_task", where),
                   .recovered = number_of(item, "recovered", where)};
    if (std::isnan(*row.recovered)) row.recovered.reset();
    results.summary.push_back(std::move(row));
  });
  for_each(document, "per_task", origin, [&](const json& item, const std::string& where) {
    results.per_task.push_back({.task = io::require_string(item, "task", where),
                                .method = io::require_string(item, "method", where),
                                .metric = io::require_string(item, "metric", where),
                                .mean = number_of(item, "mean", where),
                                .standard_error = number_of(item, "stderr", where),
                                .count = count_of(item, "n", where)});
  });
}

void read_training(const json& document, const std::string& origin, Results& results) {
  for_each(document, "training", origin, [&](const json& item, const std::string& where) {
    Curve curve{.adapter = io::require_string(item, "adapter", where),
                .kind = text_of(item, "kind", where),
                .steps = numbers_of(item, "steps", where),
                .loss = numbers_of(item, "loss", where),
                .tokens = number_of(item, "tokens", where),
                .rows = number_of(item, "rows", where),
                .seconds = number_of(item, "seconds", where),
                .tokens_per_second = number_of(item, "tokens_per_second", where)};
    check_size(curve.loss.size(), curve.steps.size(), where, "\"loss\"", "steps");
    results.training.push_back(std::move(curve));
  });
}

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

void read_routing(const json& document, const std::string& origin, std::vector<LibraryRouting>& routing) {
  for_each(document, "routing", origin, [&](const json& item, const std::string& where) {
    const auto name = io::require_string(item, "library", where);
    const auto adapters = strings_of(item, "adapters", where);
    const auto method = io::find_string(item, "method", where).value_or("");
    auto library =
        std::ranges::find_if(routing, [&](const LibraryRouting& known) { return known.library == name && known.method == method; });
    if (library == routing.end()) {
      routing.push_back({.library = name, .method = method, .adapters = adapters, .tasks = {}});
      library = std::prev(routing.end());
    }
    if (library->adapters != adapters) {
      fail(ErrorKind::kBadFormat,
           "{}: library '{}' has {} adapters here and {} before, or in another order; write the same list for every task", where, name,
           adapters.size(), library->adapters.size());
    }
    TaskRouting task{.task = io::require_string(item, "task", where), .layers = {}};
    for_each(item, "layers", where, [&](const json& layer, const std::string& place) {
      task.layers.push_back({.layer = io::require_string(layer, "layer", place), .share = numbers_of(layer, "share", place)});
      check_size(task.layers.back().share.size(), adapters.size(), place, "\"share\"", "adapters");
    });
    if (!library->tasks.empty()) check_same_layers(task, library->tasks.front(), where);
    library->tasks.push_back(std::move(task));
  });
}

void read_samples(const json& document, const std::string& origin, Results& results) {
  for_each(document, "samples", origin, [&](const json& item, const std::string& where) {
    Sample sample{.section = text_of(item, "section", where),
                  .method = text_of(item, "method", where),
                  .task = io::require_string(item, "task", where),
                  .id = loose_text(item, "id"),
                  .metrics = {},
                  .num_tokens = io::find_int(item, "num_tokens", where),
                  .prediction = std::nullopt,
                  .targets = strings_of(item, "targets", where),
                  .log_probs = numbers_of(item, "log_probs", where),
                  .label = io::find_int(item, "label", where)};
    if (item.contains("prediction") && !item["prediction"].is_null()) sample.prediction = loose_text(item, "prediction");
    for (const auto& metric : results.metrics) {
      const auto found = item.find(metric.name);
      if (found == item.end() || !(found->is_number() || found->is_null())) continue;
      sample.metrics.emplace_back(metric.name, number_of(item, metric.name, where));
    }
    results.samples.push_back(std::move(sample));
  });
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
  for (const auto& sample : results.samples) use(sample.method, "");
}

}  // namespace

std::vector<double> numbers_of(const json& object, std::string_view key, const std::string& origin) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null()) return {};
  return numbers_in(*found, format("{}.{}", origin, key));
}

Clusters clusters_of(const json& document, const std::string& origin) {
  Clusters clusters;
  if (!document.contains("clusters") || document["clusters"].is_null()) return clusters;
  const auto& object = io::require_object(document, "clusters", origin);
  const auto where = origin + ": clusters";
  clusters.adapters = strings_of(object, "adapters", where);
  for (const auto& label : numbers_of(object, "labels", where)) {
    if (!(std::abs(label) <= kMaxLabel) || label != std::floor(label)) {
      fail(ErrorKind::kBadFormat, "{}.labels holds {}; expected whole numbers up to {}", where, label, kMaxLabel);
    }
    clusters.labels.push_back(static_cast<std::int64_t>(label));
  }
  const auto n = clusters.adapters.size();
  check_size(clusters.labels.size(), n, where, "\"labels\"", "adapters");
  if (!object.contains("similarity") || object["similarity"].is_null()) return clusters;
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
  read_head(document, origin, results);
  read_catalogue(document, origin, results);
  read_scores(document, origin, results);
  read_training(document, origin, results);
  results.clusters = clusters_of(document, origin);
  read_routing(document, origin, results.routing);
  read_samples(document, origin, results);
  describe_the_rest(results);
  return results;
}

}  // namespace quiver::results
