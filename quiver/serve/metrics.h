// Figures of a server, in Prometheus' text format.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace quiver::serve {

/// Names and values of labels, in the order in which they are written.
using Labels = std::vector<std::pair<std::string, std::string>>;

/// Counters and histograms by name and labels, written as text. Names and help stand in the table of metrics.cpp. Label values beyond the
/// first `kMostSeries` of a name count as "other". Thread-safe.
class Metrics {
 public:
  static constexpr std::size_t kMostSeries = 1000;

  /// Adds to a counter.
  void count(const std::string& name, const Labels& labels = {}, double amount = 1);
  /// Adds a duration to a histogram.
  void observe(const std::string& name, double seconds, const Labels& labels = {});
  /// The text of all of them, and of gauges that are read now.
  std::string text(const std::vector<std::tuple<std::string, Labels, double>>& gauges) const;
  /// The sum of a counter over all labels, and the number of observations of a histogram.
  double total(const std::string& name) const;

 private:
  struct Histogram {
    std::vector<std::uint64_t> buckets;
    double sum = 0;
    std::uint64_t count = 0;
  };
  template <typename T>
  T& series(std::map<std::string, std::map<std::string, T>>& all, const std::string& name, const Labels& labels);

  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, double>> counters_;  // by name, by labels as text
  std::map<std::string, std::map<std::string, Histogram>> histograms_;
};

}  // namespace quiver::serve
