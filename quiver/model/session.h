// Decoding requests that come and go, together.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/forest/token_forest.h"
#include "quiver/model/kv_cache.h"
#include "quiver/model/model.h"
#include "quiver/model/sampler.h"

namespace quiver::model {

/// Which adapters serve a request: the group of its rows (forest::Sequence::group), held for as long as the pointer lives. Null: group 0.
using Assignment = std::shared_ptr<const std::int32_t>;

struct RequestOptions {
  std::int64_t max_new_tokens = 64;
  SamplerOptions sampler;
  std::vector<std::int32_t> stop_ids;  ///< the answer ends with the first of these, which is kept
};

/// A prompt to continue, and all that its answer depends on beside the model.
struct Request {
  std::vector<std::int32_t> tokens;
  RequestOptions options;
  Assignment assignment;
  std::string name;  ///< for messages: "the prompt"
};

/// Throws kUsage, naming the request, for a prompt that is empty or fills the model's context and for options out of their ranges;
/// kMismatch for a token that the model does not have.
void check_request(const Model& model, const Request& request);

enum class Finish {
  kStopId,     ///< the token is one of stop_ids
  kLength,     ///< max_new_tokens, or the end of the model's context
  kNotFinite,  ///< the logits overflow; there is no token
};

using RequestId = std::uint64_t;

struct ChosenToken {
  RequestId id = 0;
  std::int32_t token = -1;
  std::optional<Finish> finish;  ///< of a request that has ended with this token
};

struct SessionOptions {
  std::int64_t max_batch = 64;  ///< requests decoded together; further ones wait
  std::int64_t cache_rows = 0;  ///< of the KV cache, allocated once; 0: for one request of any length
  std::int64_t page_rows = 16;  ///< the cache is given out in pages of so many rows
};

/// Rows of a KV cache with which all requests fit into one session at once.
std::int64_t cache_rows_for(const Model& model, std::span<const Request> requests, const SessionOptions& options = {});

/// Requests over one KV cache. Each step gives every running request its next token. New requests join between steps, in the order in which
/// they were added, as soon as there is a place in the batch and room in the cache for all that they may become; so a running
/// request never lacks room. Prompts that begin alike share the rows of what they have in common, within an assignment: requests that join
/// together, and a new one with a running one. Rows are freed with the last request that reads them.
///
/// The answer to a request depends on the model and the request alone; docs/numerics.md says what rounding may change. Not thread-safe:
/// one thread calls it.
class Session {
 public:
  /// The model must outlive the session. Throws kUsage for options out of their ranges.
  explicit Session(const Model& model, const SessionOptions& options = {});

  /// Throws as check_request, and kUsage for a request that is too large for the whole cache.
  RequestId add(Request request);
  /// The next token of every running request, in the order of their ids; nothing if there is no request. A pass that throws leaves all
  /// requests as they were.
  std::vector<ChosenToken> step();
  /// Ends a request now; no step names it again. False if there is none of this id, or it has ended.
  bool remove(RequestId id);

  bool is_empty() const { return waiting_.empty() && running_.empty(); }
  std::size_t num_waiting() const { return waiting_.size(); }
  std::size_t num_running() const { return running_.size(); }
  const CachePages& pages() const { return pages_; }

 private:
  /// A request that has not joined.
  struct Waiting {
    RequestId id;
    Request request;
    Sampler sampler;
  };
  /// A request whose prompt is computed.
  struct Running {
    RequestId id;
    Request request;
    Sampler sampler;
    std::vector<std::int32_t> tokens;  // the prompt and what was chosen; the last is not computed yet
    std::vector<RowSpan> rows;         // in the cache, of the tokens that are computed
    std::vector<RowSpan> reserved;     // for those to come
    std::vector<PageLease> leases;     // of both
  };
  /// What a waiting request can share with a running one.
  struct Shared {
    std::size_t with = 0;  // index in running_
    std::int64_t length = 0;
  };
  /// Requests that join together: a forest of what is new of each, and where its rows stand in the cache.
  struct Joining {
    std::vector<std::size_t> who;  // indices in waiting_, a sequence of the forest each
    std::vector<Shared> shared;    // of each; empty: nothing is shared with running requests
    forest::ForestBatch batch;
    std::vector<RowSpan> rows;
  };
  /// What requests choose from, on the CPU.
  struct Logits {
    torch::Tensor largest;    // [B] int64: its place
    torch::Tensor is_finite;  // [B] bool
    torch::Tensor all;        // [B, V]; undefined if all are greedy
  };

  std::int64_t most_new(const Request& request) const;
  std::int64_t pages_for(const std::vector<Joining>& joining) const;
  Shared most_shared(const Request& request) const;
  std::vector<Joining> lay_out(std::size_t count, std::span<const Shared> shared) const;
  std::vector<Joining> next_to_join() const;
  ForwardRows rows_of(const Joining& joining);
  std::vector<Running> join(Joining& joining);
  ForwardRows next_rows();
  Logits logits_of(std::span<const Running> running, const torch::Tensor& hidden) const;
  static std::vector<ChosenToken> choose(std::span<Running> running, const Logits& logits);

  const Model& model_;
  SessionOptions options_;
  CachePages pages_;
  KvCache cache_;
  std::deque<Waiting> waiting_;
  std::vector<Running> running_;
  RequestId next_id_ = 0;
};

}  // namespace quiver::model
