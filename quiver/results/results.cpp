#include "quiver/results/results.h"

#include <algorithm>
#include <array>

#include "quiver/base/error.h"

namespace quiver::results {
namespace {

template <typename T>
const T& find_named(const std::vector<T>& values, std::string_view name, const char* what) {
  const auto found = std::ranges::find(values, name, &T::name);
  if (found == values.end()) fail(ErrorKind::kInternal, "the results have no {} '{}'", what, name);
  return *found;
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

}  // namespace quiver::results
