// Counting what routers choose, for reports.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "quiver/routing/router.h"

namespace quiver::routing {

/// What was chosen at one projection. Divide by num_tokens for means.
struct RoutingUsage {
  std::vector<double> weight;         ///< [N]: summed weights
  std::vector<std::int64_t> choices;  ///< [N]: tokens that chose the adapter at all
  double entropy = 0;                 ///< summed -sum_j w_j ln w_j of the tokens; at most num_tokens * ln k
  std::int64_t num_tokens = 0;
};

/// Usage by tag (a task, say) and projection path. Thread-safe.
class RoutingRecorder {
 public:
  /// Decisions from now on count under `tag`; at first the tag is "".
  void set_tag(std::string tag);
  void record(const std::string& path, std::int64_t num_adapters, const RoutingDecision& decision);
  /// A copy of what was counted so far: tag -> path -> usage.
  std::map<std::string, std::map<std::string, RoutingUsage>> usage() const;
  void clear();

 private:
  mutable std::mutex mutex_;
  std::string tag_;
  std::map<std::string, std::map<std::string, RoutingUsage>> usage_;
};

/// Routes as `router` does and tells `recorder`, which must outlive it.
class RecordingRouter : public Router {
 public:
  RecordingRouter(RouterPtr router, std::string path, RoutingRecorder* recorder);
  std::int64_t num_adapters() const override { return router_->num_adapters(); }

 protected:
  RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t> groups) const override;

 private:
  RouterPtr router_;
  std::string path_;
  RoutingRecorder* recorder_;
};

}  // namespace quiver::routing
