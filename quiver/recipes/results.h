// From per-sample records to the results that tables and reports show.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace quiver::recipes {

/// One value of one metric of one sample.
struct Measurement {
  std::string section, task, method, id, metric;
  double value = 0;
};

/// "summary" and "per_task" of docs/results.md: means with standard errors over samples, paired differences to the method
/// "base", and for Arrow the share of the way from the mean to the oracle of the same adapters, (mean - arrow) / (mean -
/// oracle), where the oracle is better than the mean.
nlohmann::json summarize(const std::vector<Measurement>& measurements, const std::vector<std::string>& methods);
nlohmann::json per_task(const std::vector<Measurement>& measurements, const std::vector<std::string>& methods);

}  // namespace quiver::recipes
