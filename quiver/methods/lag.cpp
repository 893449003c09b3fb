// LAG: Arrow's shortlist, then the one adapter with the largest |V x|; and the base alone where a prompt looks like no task.
#include <torch/utils.h>

#include "quiver/methods/parts.h"
#include "quiver/routing/directions.h"
#include "quiver/routing/group_router.h"

namespace quiver::methods {
namespace {

using LagBaseOptions = OptionsOf<LagChoice, Ties, CalibrationText, TaskThreshold>;

/// LAG times task_share, in eighths, so that prompts of one share may share prefixes.
RoutedAdapters make_lag_base(const LibraryContext& in, const LagBaseOptions& options) {
  auto routed = make_lag(in, options);
  const auto shares = std::make_shared<routing::GroupTable>(1);
  for (auto& [path, router] : routed.routers) router = std::make_shared<routing::ShareRouter>(router, shares);
  routed.chooser =
      std::make_shared<TableChooser>(shares, std::vector<std::string>{},
                                     [evidence = arrow_evidence(in, options, options), threshold = options.task_threshold](
                                         std::span<const Prompt> prompts, Progress& progress) {
                                       return (task_share(evidence.of(prompts, progress), evidence.calibration, threshold) * 8).round() / 8;
                                     });
  return routed;
}

}  // namespace

RoutedAdapters make_lag(const LibraryContext& in, const LagChoice& options) {
  const auto count = static_cast<std::int64_t>(in.adapters.size());
  return make_scored(in, options.combine, {.vectors = routing::stacked_directions(in.adapters, 0, 0), .rule = {}},
                     {.top_k = options.top_k_of(in.adapters.size()),
                      .temperature = options.routing_temperature,
                      .shortlist = std::min(options.shortlist, count)});
}

Method lag() {
  return method_row(
      Family::kToken,
      {"lag", "LAG", "Arrow's shortlist, then the one adapter with the largest |V x|", "Fleshman and Van Durme 2025, arXiv 2507.05346"},
      make_lag);
}

Method lag_base() {
  return method_row(
      Family::kToken,
      {"lag-base", "LAG or base", "LAG where a prompt looks like a task of the library, the base alone where it does not", "Quiver"},
      make_lag_base);
}

}  // namespace quiver::methods
