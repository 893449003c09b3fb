// Requests that run, and the pass that is being planned: for the sources of the scheduler alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quiver/schedule/scheduler.h"

namespace quiver::schedule {

inline std::int64_t num_tokens(const std::vector<std::int32_t>& tokens) { return static_cast<std::int64_t>(tokens.size()); }

struct Scheduler::Sequence {
  Sequence(RequestId i, Request r)
      : id(i), request(std::move(r)), sampler(request.options.sampler, request.tokens), tokens(request.tokens) {}

  RequestId id;
  Request request;
  Sampler sampler;
  AssignmentPtr assignment;          // as decided; null before
  std::string key;                   // of its tree
  std::vector<std::int32_t> tokens;  // the prompt and what was chosen
  bool is_paused = false;
  bool shares = true;

  // Where it stands; nothing of it while it waits.
  PrefixPlace place;              // the end of what it has in the tree
  bool owns_node = false;         // the place's node is of its own tokens
  std::vector<RowSpan> rows;      // of the tokens that are computed
  std::int64_t computed = 0;      // tokens
  std::vector<RowSpan> reserved;  // for tokens to come, beyond the tree
  std::vector<PageLease> leases;  // of rows beyond the tree
  std::int64_t num_cached = 0;
  std::vector<TokenScore> prompt_scores;  // of the first scored token and those after it
  std::optional<PageLease> again;         // of the row before its own tokens, which is computed once more for its logits
  std::vector<RowSpan> row_again;

  std::int64_t num_prompt() const { return num_tokens(request.tokens); }
  std::int64_t num_new() const { return num_tokens(tokens) - num_prompt(); }
  std::int64_t num_pending() const { return num_tokens(tokens) - computed; }
  bool is_answering() const { return num_new() > 0 && num_pending() == 1; }
  bool has_scores_to_come() const { return request.is_scored && num_new() == 0; }
  bool is_scored_whole() const { return request.is_scored && request.first_scored == 1; }
  bool shares_scores() const { return has_scores_to_come() && is_scored_whole(); }
};

/// A pass that is being planned.
struct Scheduler::Step {
  struct Part {
    Sequence* sequence = nullptr;
    std::int64_t count = 0;  // tokens, without the one that is computed again
    std::size_t first_query = 0, num_queries = 0;
  };
  std::int64_t rows_left = 0;
  std::vector<Segment> segments;
  std::vector<Query> queries;
  std::vector<Part> parts;  // one for each segment
  std::vector<Sequence*> admitted;
  struct NodeSegment {
    std::int64_t index = 0;
    std::int64_t position = 0;  // of its first row
  };
  std::unordered_map<NodeId, NodeSegment> segment_of_node;  // of nodes whose first token is computed now
};

}  // namespace quiver::schedule
