// The engine of a server: passes over requests of many contexts.
#pragma once

#include <torch/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quiver/engine/context.h"
#include "quiver/engine/mixed_pass.h"
#include "quiver/engine/route_tracer.h"
#include "quiver/model/cached_pass.h"
#include "quiver/schedule/engine.h"

namespace quiver::engine {

/// Computes requests whose assignments are contexts, or null for the base. Contexts that differ from the base in updates of linear maps
/// share a pass (mixed_model). Each other context has a pass of its own, over the same cache.
class ServingEngine : public schedule::Engine {
 public:
  /// The base must outlive the engine. `tracer` observes the contexts whose routes are wanted.
  ServingEngine(const methods::BaseModel& base, std::int64_t num_cache_rows, std::shared_ptr<RouteTracer> tracer);

  std::int64_t vocab_size() const override { return base_.lm.spec().vocab_size; }
  std::int64_t context_length() const override { return base_.lm.spec().max_positions; }
  std::int64_t num_cache_rows() const override { return num_cache_rows_; }
  schedule::AssignmentPtr decide(const schedule::AssignmentPtr& assignment, std::span<const std::int32_t> prompt) override;
  std::vector<schedule::RowResult> compute(std::span<const schedule::Segment> segments, std::span<const schedule::Query> queries) override;

 private:
  struct Pass;
  std::vector<Pass> passes_of(std::span<const schedule::Segment> segments, std::span<const schedule::Query> queries) const;
  void run(const Pass& pass, std::vector<schedule::RowResult>& results);

  const methods::BaseModel& base_;
  std::int64_t num_cache_rows_;
  std::shared_ptr<RouteTracer> tracer_;
  ContextPtr base_context_;
  std::shared_ptr<PassParts> parts_ = std::make_shared<PassParts>();
  model::Model mixed_;
  model::KvCache cache_;
  std::vector<std::vector<torch::Tensor>> logits_;  // that were wanted, by pass of the last step
};

/// Bytes of keys and values of one token.
std::int64_t cache_row_bytes(const model::Model& model);

}  // namespace quiver::engine
