#include "quiver/serve/metrics.h"

#include <array>
#include <cmath>
#include <string_view>

#include "quiver/base/error.h"

namespace quiver::serve {
namespace {

/// Upper bounds of the histograms' buckets, in seconds.
constexpr std::array kBuckets = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0};

struct MetricText {
  const char* name;
  const char* type;
  const char* help;
};
constexpr MetricText kMetrics[] = {
    {"quiver_requests_total", "counter", "Requests that were answered, by endpoint, model and status."},
    {"quiver_prompt_tokens_total", "counter", "Tokens of prompts, computed or found in the cache."},
    {"quiver_generated_tokens_total", "counter", "Tokens of answers."},
    {"quiver_cancelled_total", "counter", "Requests whose client went away, or that were too slow."},
    {"quiver_rejected_total", "counter", "Requests that were refused because of load."},
    {"quiver_ignored_fields_total", "counter", "Fields of requests that have no effect."},
    {"quiver_adapter_changes_total", "counter", "Adapters that were added, replaced and removed."},
    {"quiver_steps_total", "counter", "Passes of the engine."},
    {"quiver_failed_steps_total", "counter", "Passes that failed."},
    {"quiver_preemptions_total", "counter", "Requests that lost their rows of the cache and were computed again."},
    {"quiver_time_to_first_token_seconds", "histogram", "From a request to its first token."},
    {"quiver_token_gap_seconds", "histogram", "Between two tokens of an answer."},
    {"quiver_request_seconds", "histogram", "From a request to the end of its answer."},
    {"quiver_running", "gauge", "Requests that are computed."},
    {"quiver_waiting", "gauge", "Requests that wait."},
    {"quiver_connections", "gauge", "Open connections."},
    {"quiver_kv_pages", "gauge", "Pages of the cache of keys and values, by state."},
    {"quiver_adapters", "gauge", "Adapters that are served."},
    {"quiver_step_seconds", "gauge", "How long the last pass took."},
    {"quiver_build_info", "gauge", "1; the labels tell of the program."},
};

std::string escaped(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string text_of(const Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) text += (text.empty() ? "" : ",") + name + "=\"" + escaped(value) + "\"";
  return text;
}

std::string number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return format("{}", static_cast<std::int64_t>(value));
  return format("{}", value);
}

std::string line(const std::string& name, const std::string& labels, const std::string& value) {
  return name + (labels.empty() ? "" : "{" + labels + "}") + " " + value + "\n";
}

std::string joined(const std::string& labels, const std::string& more) { return labels.empty() ? more : labels + "," + more; }

}  // namespace

template <typename T>
T& Metrics::series(std::map<std::string, std::map<std::string, T>>& all, const std::string& name, const Labels& labels) {
  auto& mine = all[name];
  auto key = text_of(labels);
  if (mine.size() >= kMostSeries && !mine.contains(key)) {
    Labels other;
    for (const auto& [label, value] : labels) other.emplace_back(label, "other");
    key = text_of(other);
  }
  return mine[key];
}

void Metrics::count(const std::string& name, const Labels& labels, double amount) {
  const std::lock_guard lock(mutex_);
  series(counters_, name, labels) += amount;
}

void Metrics::observe(const std::string& name, double seconds, const Labels& labels) {
  const std::lock_guard lock(mutex_);
  auto& histogram = series(histograms_, name, labels);
  histogram.buckets.resize(kBuckets.size());
  for (std::size_t b = 0; b < kBuckets.size(); ++b) histogram.buckets[b] += seconds <= kBuckets[b] ? 1 : 0;
  histogram.sum += seconds;
  ++histogram.count;
}

double Metrics::total(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  double total = 0;
  if (const auto found = counters_.find(name); found != counters_.end()) {
    for (const auto& [labels, value] : found->second) total += value;
  }
  if (const auto found = histograms_.find(name); found != histograms_.end()) {
    for (const auto& [labels, histogram] : found->second) total += static_cast<double>(histogram.count);
  }
  return total;
}

std::string Metrics::text(const std::vector<std::tuple<std::string, Labels, double>>& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& metric : kMetrics) {
    const std::string name = metric.name;
    std::string lines;
    if (const auto found = counters_.find(name); found != counters_.end()) {
      for (const auto& [labels, value] : found->second) lines += line(name, labels, number(value));
    }
    if (const auto found = histograms_.find(name); found != histograms_.end()) {
      for (const auto& [labels, histogram] : found->second) {
        for (std::size_t b = 0; b < kBuckets.size(); ++b) {
          lines +=
              line(name + "_bucket", joined(labels, format("le=\"{}\"", kBuckets[b])), number(static_cast<double>(histogram.buckets[b])));
        }
        lines += line(name + "_bucket", joined(labels, "le=\"+Inf\""), number(static_cast<double>(histogram.count)));
        lines += line(name + "_sum", labels, number(histogram.sum)) +
                 line(name + "_count", labels, number(static_cast<double>(histogram.count)));
      }
    }
    for (const auto& [gauge, labels, value] : gauges) {
      if (gauge == name) lines += line(name, text_of(labels), number(value));
    }
    if (!lines.empty()) out += "# HELP " + name + " " + metric.help + "\n# TYPE " + name + " " + metric.type + "\n" + lines;
  }
  return out;
}

}  // namespace quiver::serve
