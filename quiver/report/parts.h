// The parts of a report that hold charts, each as HTML without its heading; empty if the results have nothing for it.
#pragma once

#include <string>

#include "quiver/report/view.h"

namespace quiver::report {

/// Paired differences to the base model, a panel per section and metric.
std::string difference_part(const Results& results);
/// Training curves, a panel per kind of adapter, and the table of all trainings.
std::string training_part(const Results& results);
/// The similarity of adapters, ordered by cluster.
std::string similarity_part(const Results& results);
/// Where tasks are routed: tasks by adapters, and layers by adapters for one task to select. `prefix` makes ids unique in the page.
std::string routing_part(const Results& results, const std::string& prefix);

/// Above this many shares (tasks x layers x adapters) the layers of the first tasks only are in the page.
inline constexpr std::int64_t kMostLayerShares = 2'000'000;

}  // namespace quiver::report
