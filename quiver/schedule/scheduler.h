// Requests that come and go, computed together over one cache of keys and values.
#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quiver/schedule/engine.h"
#include "quiver/schedule/fair_queue.h"
#include "quiver/schedule/pages.h"
#include "quiver/schedule/prefix_tree.h"
#include "quiver/schedule/request.h"
#include "quiver/schedule/sampler.h"

namespace quiver::schedule {

/// A prompt to continue, and all that its answer depends on.
struct Request {
  std::vector<std::int32_t> tokens = {};
  RequestOptions options = {};
  AssignmentPtr assignment = nullptr;
  std::int64_t decide_on = 0;  ///< tokens of the prompt that a method which decides per prompt sees; 0: all
  bool is_scored = false;      ///< the prompt's own tokens are scored; then options.max_new_tokens may be 0
  /// The first token that is scored. From 1 on all are, and later requests of the kind take scores as well as rows. Of a later one, rows
  /// before it are shared with requests that are not scored.
  std::int64_t first_scored = 1;
  bool wants_routes = false;    ///< of the rows that give the answer's tokens
  std::string cache_salt = {};  ///< rows are shared among requests of equal salts alone
  std::string client = {};      ///< whom the request counts for; clients get equal shares
  std::string name = {};        ///< for messages: "the prompt"
};

using RequestId = std::uint64_t;

/// What a step brought to a request.
struct Event {
  RequestId id = 0;
  std::vector<TokenScore> prompt = {};  ///< of a scored prompt, once it is computed: of Request::first_scored and all after it
  std::int32_t token = -1;              ///< the new token; -1: none
  TokenScore score = {};                ///< of the new token, if log-probabilities are wanted
  std::vector<LayerRoute> route = {};   ///< of the row that gave the token, where it is wanted
  std::optional<Finish> finish = {};    ///< of a request that has ended
  std::int64_t num_cached = 0;          ///< tokens of the prompt whose rows were there before
  std::exception_ptr error = nullptr;   ///< with Finish::kError
};

struct SchedulerOptions {
  std::int64_t max_sequences = 64;    ///< computed together; further ones wait
  std::int64_t page_rows = 16;        ///< the cache is given out in pages of so many rows
  std::int64_t max_step_rows = 2048;  ///< rows of a pass
  /// Rows of a pass beside which requests are being answered are fewer, so that the pass takes about so long. 0: no such limit.
  double max_step_seconds = 0;
  bool keeps_prefixes = true;  ///< rows of requests that have ended stay until their pages are needed
};

struct SchedulerCounts {
  std::int64_t num_waiting = 0, num_running = 0;
  std::int64_t num_pages = 0, num_free_pages = 0, num_cached_pages = 0;
  std::uint64_t steps = 0;
  std::uint64_t preemptions = 0;  ///< requests that lost their rows, which are computed again later
  std::uint64_t computed_tokens = 0, cached_tokens = 0, generated_tokens = 0;
};

/// Throws kUsage, naming the request, for a prompt that is empty or fills the context and for options out of their ranges; kMismatch for a
/// token beyond the vocabulary.
void check_request(const Request& request, std::int64_t vocab_size, std::int64_t context_length);

/// Computes requests step by step. A step gives every running request its next token, and goes on with prompts as far as its rows allow.
/// Clients are served alike (FairQueue), and each client's requests in their order. Prompts that begin alike share the rows of what they
/// have in common (PrefixTree), within an assignment and a salt. A request takes rows as it grows. Where none are left, the request that
/// joined last gives up its own and begins again later; its answer goes on where it was.
///
/// The answer to a request depends on the engine and the request alone, up to rounding (docs/numerics.md). Not thread-safe.
class Scheduler {
 public:
  /// The engine must outlive the scheduler. Throws kUsage for options out of their ranges.
  explicit Scheduler(Engine& engine, const SchedulerOptions& options = {});
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Throws as check_request, and kUsage for a request that is too large for the whole cache.
  RequestId add(Request request);
  /// Ends a request now; no step names it again. False if there is none of this id, or it has ended.
  bool remove(RequestId id);
  /// A paused request keeps its rows and gets no tokens. False as remove.
  bool set_paused(RequestId id, bool is_paused);
  bool is_waiting(RequestId id) const { return waiting_.contains(id); }
  /// One pass, and what it brought, in the order of ids. A pass that throws leaves all requests as they were; in_last_step names those that
  /// took part.
  std::vector<Event> step();
  const std::vector<RequestId>& in_last_step() const { return in_last_step_; }

  /// Gives up all rows that are kept for requests to come.
  void forget_prefixes();
  /// Whether a step would do something.
  bool has_work() const;
  bool is_empty() const { return running_.empty() && queue_.is_empty(); }
  SchedulerCounts counts() const;

 private:
  struct Sequence;
  struct Step;

  std::int64_t step_rows() const;
  void plan_running(Step& step);
  void admit(Step& step);
  /// Gives a waiting request its place in the tree.
  enum class Placed { kYes, kLater, kNoRoom, kFailed };
  Placed place(Step& step, Sequence& sequence);
  void decide(Sequence& sequence);
  PrefixPlace shared_place(const Step& step, const Sequence& sequence, bool& is_to_wait);
  std::vector<RowSpan> next_rows(const Sequence& sequence, std::int64_t size) const;
  void plan_chunk(Step& step, Sequence& sequence);
  void ask(Step& step, Sequence& sequence, std::int64_t segment, std::int64_t size, std::int64_t again) const;
  std::int64_t take_known_scores(const Step& step, Sequence& sequence, PrefixPlace place) const;
  void keep_scores(const Sequence& sequence);
  void ask_of_shared(Step& step, Sequence& sequence) const;
  bool make_room(std::int64_t num_pages);
  bool grow(Sequence& sequence);
  void leave(Sequence& sequence);
  void preempt_last();
  void undo(Step& step);
  std::vector<Event> take(Step& step, std::span<const RowResult> results);
  Event take_one(Sequence& sequence, std::span<const RowResult> results);
  void end(RequestId id);

  Engine& engine_;
  SchedulerOptions options_;
  CachePages pages_;
  PrefixTree tree_;
  FairQueue queue_;
  std::map<RequestId, std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order in which they joined
  std::vector<RequestId> in_last_step_;
  std::vector<Event> events_;  // of requests that could not join, until a step brings them
  RequestId next_id_ = 0;
  double seconds_per_row_ = 0;
  SchedulerCounts counts_;
};

}  // namespace quiver::schedule
