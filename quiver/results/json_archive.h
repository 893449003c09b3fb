// Every member of results, named once for reading and for writing: for json.cpp alone.
#pragma once

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/results/results.h"

namespace quiver::results::archive {

using nlohmann::json;

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

inline bool has(const json& object, const char* key) { return object.contains(key) && !object[key].is_null(); }

/// NaN for a number that is not finite.
inline double checked_number(double value, const std::string& place) {
  if (!std::isfinite(value)) return kMissing;
  if (std::abs(value) > kMaxNumber) fail(ErrorKind::kBadFormat, "{} is {}; at most {} in size is read", place, value, kMaxNumber);
  return value;
}

inline std::vector<double> numbers_in(const json& array, const std::string& where) {
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

inline void check_size(std::size_t got, std::size_t expected, const std::string& where, const char* what, const char* of) {
  if (got != expected) {
    fail(ErrorKind::kBadFormat, "{}: {} has {} entries for {} {}; expected one each", where, what, got, expected, of);
  }
}

/// Numbers without a decimal point where they are whole.
inline json whole_number(double value) {
  constexpr double kMaxExact = 9007199254740992.0;  // 2^53
  const bool is_whole = value == std::floor(value) && std::abs(value) <= kMaxExact;
  return is_whole ? json(static_cast<std::int64_t>(value)) : std::isfinite(value) ? json(value) : json(nullptr);
}

inline json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

template <typename T, typename Write>
json list_of(const std::vector<T>& values, Write write) {
  auto list = json::array();
  for (const auto& value : values) list.push_back(write(value));
  return list;
}

/// Reads the members of an object, each with what it is where it is missing or null.
struct Reader {
  static constexpr bool kReads = true;
  const json& object;
  std::string where;

  void name(const char* key, std::string& value) const { value = io::require_string(object, key, where); }
  void text(const char* key, std::string& value, const std::string& otherwise = "") const {
    value = io::find_string(object, key, where).value_or(otherwise);
  }
  /// A string or a number, as text.
  void loose(const char* key, std::string& value) const {
    if (!has(object, key)) return;
    const auto& found = object[key];
    value = found.is_string() ? found.get<std::string>() : found.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  void flag(const char* key, bool& value, bool otherwise) const { value = io::find_bool(object, key, where).value_or(otherwise); }
  void count(const char* key, std::int64_t& value) const { value = io::find_int(object, key, where).value_or(0); }
  void count(const char* key, std::optional<std::int64_t>& value) const { value = io::find_int(object, key, where); }
  void number(const char* key, double& value) const {
    const auto found = io::find_double(object, key, where);
    value = found ? checked_number(*found, format("{}.{}", where, key)) : kMissing;
  }
  void number(const char* key, std::optional<double>& value) const {
    number(key, value.emplace());
    if (std::isnan(*value)) value.reset();
  }
  void amount(const char* key, double& value) const { number(key, value); }
  void numbers(const char* key, std::vector<double>& values) const { values = numbers_of(object, key, where); }
  void amounts(const char* key, std::vector<double>& values) const { numbers(key, values); }
  void members_of(const char* key, json& value) const {
    if (has(object, key)) value = io::require_object(object, key, where);
  }
  void texts(const char* key, std::vector<std::string>& values) const {
    if (!has(object, key)) return;
    for (const auto& item : io::require_array(object, key, where)) {
      if (!item.is_string()) {
        fail(ErrorKind::kBadFormat, "{}.{}[{}] is of type {}; expected a string", where, key, values.size(), item.type_name());
      }
      values.push_back(item.get<std::string>());
    }
  }
  template <typename T>
  void part(const char* key, std::optional<T>& value) const {
    if (has(object, key)) members(Reader{io::require_object(object, key, where), format("{}.{}", where, key)}, value.emplace());
  }
  /// Calls read(reader) for each object of the array `key`, if there is one.
  template <typename Read>
  void for_each(const char* key, Read read) const {
    if (!has(object, key)) return;
    const auto& array = io::require_array(object, key, where);
    for (std::size_t i = 0; i < array.size(); ++i) {
      const Reader item{array[i], format("{}: {}[{}]", where, key, i)};
      if (!array[i].is_object()) {
        fail(ErrorKind::kBadFormat, "{} is of type {}; expected an object", item.where, array[i].type_name());
      }
      read(item);
    }
  }
  template <typename T>
  void parts(const char* key, std::vector<T>& values) const {
    for_each(key, [&](const Reader& item) { members(item, values.emplace_back()); });
  }
};

/// Writes the same members. What is an option, or text that may be missing, is left out where it is empty.
struct Writer {
  static constexpr bool kReads = false;
  json& object;

  void name(const char* key, const std::string& value) const { object[key] = value; }
  void text(const char* key, const std::string& value, const std::string& = "") const { object[key] = value; }
  void loose(const char* key, const std::string& value) const { object[key] = value; }
  void flag(const char* key, bool value, bool) const { object[key] = value; }
  void count(const char* key, std::int64_t value) const { object[key] = value; }
  void count(const char* key, const std::optional<std::int64_t>& value) const {
    if (value) object[key] = *value;
  }
  void number(const char* key, double value) const { object[key] = archive::number(value); }
  void number(const char* key, const std::optional<double>& value) const { number(key, value.value_or(kMissing)); }
  void amount(const char* key, double value) const { object[key] = whole_number(value); }
  void numbers(const char* key, const std::vector<double>& values) const { object[key] = list_of(values, archive::number); }
  void members_of(const char* key, const json& value) const { object[key] = value; }
  void amounts(const char* key, const std::vector<double>& values) const { object[key] = list_of(values, whole_number); }
  void texts(const char* key, const std::vector<std::string>& values) const { object[key] = values; }
  template <typename T>
  void part(const char* key, const std::optional<T>& value) const {
    object[key] = value ? written(*value) : json(nullptr);
  }
  template <typename T>
  void parts(const char* key, const std::vector<T>& values) const {
    object[key] = list_of(values, written<T>);
  }
  template <typename T>
  static json written(const T& value) {
    auto item = json::object();
    members(Writer{item}, value);
    return item;
  }
};

template <typename Archive, typename T>
using Value = std::conditional_t<Archive::kReads, T, const T>;

template <typename Archive>
void members(const Archive& archive, Value<Archive, Base>& base) {
  archive.text("name", base.name);
  archive.text("fingerprint", base.fingerprint);
  archive.text("content", base.content);
  archive.count("parameters", base.parameters);
  archive.text("dtype", base.dtype);
  if constexpr (Archive::kReads) base.dtype = dtype_name(base.dtype);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Task>& task) {
  archive.name("name", task.name);
  archive.text("kind", task.kind);
  archive.count("num_samples", task.num_samples);
  if (Archive::kReads || !task.group.empty()) archive.loose("group", task.group);
  if (Archive::kReads || !task.version.empty()) archive.loose("version", task.version);
  if (Archive::kReads || task.num_fewshot > 0) archive.count("num_fewshot", task.num_fewshot);
  if (Archive::kReads || task.num_available > 0) archive.count("num_available", task.num_available);
  if (Archive::kReads || task.num_cut > 0) archive.count("num_cut", task.num_cut);
  if (Archive::kReads || !task.fingerprint.empty()) archive.text("fingerprint", task.fingerprint);
  if (Archive::kReads || !task.config.empty()) archive.members_of("config", task.config);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Method>& method) {
  archive.name("name", method.name);
  archive.text("label", method.label, method.name);
  archive.text("description", method.description);
  archive.flag("oracle", method.is_oracle, method.name.find("oracle") != std::string::npos);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Metric>& metric) {
  archive.name("name", metric.name);
  archive.text("label", metric.label, metric.name);
  archive.text("unit", metric.unit);
  std::string better = metric.better == Better::kLower ? "lower" : metric.better == Better::kHigher ? "higher" : "";
  archive.text("better", better);
  if constexpr (Archive::kReads) {
    if (better != "lower" && better != "higher" && !better.empty()) {
      fail(ErrorKind::kBadFormat, "{}: \"better\" is '{}'; expected 'lower' or 'higher'", archive.where, better);
    }
    metric.better = better == "lower" ? Better::kLower : better == "higher" ? Better::kHigher : Better::kUnknown;
  }
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Difference>& difference) {
  archive.number("mean", difference.mean);
  archive.number("low", difference.low);
  archive.number("high", difference.high);
  archive.count("n", difference.count);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, SummaryRow>& row) {
  archive.name("section", row.section);
  archive.name("method", row.method);
  archive.name("metric", row.metric);
  archive.number("mean", row.mean);
  archive.number("stderr", row.standard_error);
  archive.count("n", row.count);
  archive.part("difference", row.difference);
  archive.part("difference_by_task", row.difference_by_task);
  archive.number("recovered", row.recovered);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, PairedTest>& test) {
  archive.number("low", test.low);
  archive.number("high", test.high);
  archive.number("simultaneous_low", test.simultaneous_low);
  archive.number("simultaneous_high", test.simultaneous_high);
  archive.text("test", test.test);
  archive.number("p", test.p);
  archive.number("corrected_p", test.corrected_p);
  if constexpr (Archive::kReads) {
    for (const double p : {test.p, test.corrected_p}) {
      if (p < 0 || p > 1) fail(ErrorKind::kBadFormat, "{} holds the p-value {}; expected one from 0 to 1", archive.where, p);
    }
  }
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Comparison>& comparison) {
  archive.name("section", comparison.section);
  archive.name("metric", comparison.metric);
  archive.name("method", comparison.method);
  archive.name("other", comparison.other);
  archive.number("mean", comparison.mean);
  archive.count("n", comparison.count);
  archive.part("by_row", comparison.by_row);
  archive.part("by_task", comparison.by_task);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Warning>& warning) {
  archive.text("kind", warning.kind);
  archive.text("section", warning.section);
  archive.text("method", warning.method);
  archive.text("task", warning.task);
  archive.name("text", warning.text);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, TaskRow>& row) {
  archive.name("task", row.task);
  archive.name("method", row.method);
  archive.name("metric", row.metric);
  archive.number("mean", row.mean);
  archive.number("stderr", row.standard_error);
  archive.count("n", row.count);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Curve>& curve) {
  archive.name("adapter", curve.adapter);
  archive.text("kind", curve.kind);
  archive.amounts("steps", curve.steps);
  archive.numbers("loss", curve.loss);
  archive.amount("tokens", curve.tokens);
  archive.amount("rows", curve.rows);
  archive.number("seconds", curve.seconds);
  archive.number("tokens_per_second", curve.tokens_per_second);
  if constexpr (Archive::kReads) check_size(curve.loss.size(), curve.steps.size(), archive.where, "\"loss\"", "steps");
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, LayerShare>& layer) {
  archive.name("layer", layer.layer);
  archive.numbers("share", layer.share);
}

/// All but the metrics, whose names are the results' own.
template <typename Archive>
void members(const Archive& archive, Value<Archive, Sample>& sample) {
  archive.text("section", sample.section);
  archive.text("method", sample.method);
  archive.name("task", sample.task);
  archive.loose("id", sample.id);
  archive.count("num_tokens", sample.num_tokens);
  archive.count("label", sample.label);
  if (Archive::kReads || !sample.targets.empty()) archive.texts("targets", sample.targets);
  if (Archive::kReads || !sample.log_probs.empty()) archive.numbers("log_probs", sample.log_probs);
  if (Archive::kReads || !sample.is_greedy.empty()) archive.amounts("is_greedy", sample.is_greedy);
  if (Archive::kReads || !sample.outcome.empty()) archive.text("outcome", sample.outcome);
  if (Archive::kReads || sample.log_likelihood) archive.number("log_likelihood", sample.log_likelihood);
  archive.count("num_words", sample.num_words);
  archive.count("num_bytes", sample.num_bytes);
}

template <typename Archive>
void members(const Archive& archive, Value<Archive, Results>& results) {
  archive.text("created", results.created);
  archive.parts("tasks", results.tasks);
  archive.parts("methods", results.methods);
  archive.parts("metrics", results.metrics);
  archive.parts("summary", results.summary);
  archive.parts("comparisons", results.comparisons);
  archive.parts("warnings", results.warnings);
  archive.parts("per_task", results.per_task);
  archive.parts("training", results.training);
}

}  // namespace quiver::results::archive
