// What a scheduler asks of whoever computes: a narrow interface, without libtorch.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quiver/schedule/pages.h"
#include "quiver/schedule/request.h"

namespace quiver::schedule {

/// Which adapters compute the rows of a request, and how they are chosen. An engine derives its own class from it. Immutable.
struct Assignment {
  virtual ~Assignment() = default;
  /// Names all that rows depend on beside their tokens, by content. Equal keys give equal keys and values to equal tokens.
  std::string key;
};
using AssignmentPtr = std::shared_ptr<const Assignment>;

/// Tokens of one request that follow each other and are computed in one pass. They see the rows `visible` of the cache and their own rows
/// up to themselves. Rows of `visible` may be computed in the same pass.
struct Segment {
  const Assignment* assignment = nullptr;
  std::span<const std::int32_t> tokens;
  std::int64_t position = 0;     ///< of the first token
  std::vector<RowSpan> rows;     ///< of the cache, one for each token: where keys and values go
  std::vector<RowSpan> visible;  ///< in the order of positions
};

/// A question about the logits of a row.
struct Query {
  std::int64_t segment = 0;
  std::int64_t row = 0;       ///< of the segment's tokens
  std::int32_t target = -1;   ///< a token whose log-probability is wanted; -1: none
  std::int64_t top = -1;      ///< how many of the likeliest tokens are wanted, with log-probabilities; -1: no log-probabilities
  bool wants_logits = false;  ///< of all tokens
  bool wants_route = false;   ///< which adapters computed the row
};

/// The answer to a query.
struct RowResult {
  bool is_finite = true;          ///< the largest logit is; all else is undefined if not
  std::int32_t largest = -1;      ///< the token of the largest logit, of equals the lowest
  double log_sum_exp = 0;         ///< of the row's logits, where log-probabilities are wanted
  TokenScore score;               ///< of the target, where there is one, and the likeliest tokens
  std::vector<LayerRoute> route;  ///< of each layer, where it is wanted and the row's adapters are routed
  std::span<const float> logits;  ///< [V] where wanted; valid until the next pass
};

/// Computes passes over one cache of keys and values. One thread at a time calls it.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t context_length() const = 0;
  /// Rows of the cache.
  virtual std::int64_t num_cache_rows() const = 0;
  /// The assignment of a request whose method decides once per prompt, given what it decides on; else the same assignment.
  virtual AssignmentPtr decide(const AssignmentPtr& assignment, std::span<const std::int32_t> /*prompt*/) { return assignment; }
  /// Computes the segments, fills their rows of the cache, and answers the queries in their order.
  virtual std::vector<RowResult> compute(std::span<const Segment> segments, std::span<const Query> queries) = 0;
};

}  // namespace quiver::schedule
