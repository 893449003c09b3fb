// A scheduler's pass over a model: from segments to rows, and from hidden states to answers.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quiver/model/kv_cache.h"
#include "quiver/model/model.h"
#include "quiver/schedule/engine.h"

namespace quiver::model {

/// The rows of segments, one after another, over a cache of `capacity` rows. `groups` are those of the segments (forest::Sequence::group);
/// empty: all of group 0.
ForwardRows rows_over_cache(std::span<const schedule::Segment> segments, std::span<const std::int32_t> groups, KvCache& cache,
                            std::int64_t capacity);

/// The rows of a pass that queries ask about, each once, and which of them each query asks about.
struct QueriedRows {
  std::vector<std::int64_t> rows;      ///< of the pass, ascending
  std::vector<std::int64_t> of_query;  ///< an index in rows
};
QueriedRows queried_rows(std::span<const schedule::Segment> segments, std::span<const schedule::Query> queries);

/// The final hidden states of the queried rows, [R, d]; of one row where there are none, since a pass fills the cache, too.
torch::Tensor hidden_of_queried(const Model& model, const ForwardRows& rows, const QueriedRows& queried);

/// The answers to queries about hidden states [R, d]; of_query are their rows. Logits that are wanted live in `kept`. Log-probabilities are
/// float32 logits less the log-sum-exp of their row. Ties go to the lower id.
std::vector<schedule::RowResult> answer_queries(const nn::Head& head, const torch::Tensor& hidden, std::span<const std::int64_t> of_query,
                                                std::span<const schedule::Query> queries, std::vector<torch::Tensor>& kept);

/// The group of a request's rows, held for as long as it lives: which adapters serve it, where a model has several.
using GroupHold = std::shared_ptr<const std::int32_t>;

struct GroupAssignment : schedule::Assignment {
  explicit GroupAssignment(GroupHold hold);
  GroupHold group;
};

/// Computes with one model. An assignment is a GroupAssignment, or null: group 0.
class ModelEngine : public schedule::Engine {
 public:
  /// The model must outlive the engine.
  ModelEngine(const Model& model, std::int64_t num_cache_rows);

  std::int64_t vocab_size() const override { return model_.spec().vocab_size; }
  std::int64_t context_length() const override { return model_.spec().max_positions; }
  std::int64_t num_cache_rows() const override { return num_cache_rows_; }
  std::vector<schedule::RowResult> compute(std::span<const schedule::Segment> segments, std::span<const schedule::Query> queries) override;

 private:
  const Model& model_;
  std::int64_t num_cache_rows_;
  KvCache cache_;
  std::vector<torch::Tensor> logits_;  // that were wanted of the last pass
};

}  // namespace quiver::model
