// The endpoints of the server: who may call them, what they answer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/api/error.h"
#include "quiver/api/generation.h"
#include "quiver/http/server.h"
#include "quiver/serve/engine_loop.h"
#include "quiver/serve/generation_task.h"
#include "quiver/serve/metrics.h"
#include "quiver/serve/models.h"
#include "quiver/serve/worker_pool.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/tokenizer.h"

namespace quiver::serve {

struct ServiceOptions {
  std::string base_name;            ///< the name of the base among the models
  std::string api_key, admin_key;   ///< empty: none; without an admin key nothing can be changed
  std::set<std::string> hosts;      ///< that the header Host may name, without a port; empty: any
  std::string cors_origin;          ///< whose pages may call; empty: none
  std::int64_t max_waiting = 1024;  ///< requests beyond those that are computed
  std::int64_t page_rows = 16;      ///< of a page of the cache
  std::int64_t max_sequences = 64;  ///< requests that are computed together (SchedulerOptions)
  std::size_t max_body_bytes = 4 << 20;
  double stall_seconds = 60;  ///< an engine without a step for so long, with work, is not ready
  api::RequestLimits limits;
  std::vector<std::int32_t> chat_stop_ids;  ///< that end an answer of the chat template, beside EOS
  std::string system;                       ///< message of conversations that bring none
  StreamLimits stream_limits;
  std::string version;
  std::function<void(const std::string&)> log;  ///< a JSON line for each request for answers; may be empty
};

/// Answers requests over HTTP. Its handlers run on the server's thread; what takes longer runs on workers, and loading adapters on a thread
/// of its own. Thread-safe.
class Service {
 public:
  /// All of these must outlive the service. `chat_template` may be null.
  Service(Models& models, const text::Tokenizer& tokenizer, const text::ChatTemplate* chat_template, EngineLoop& loop,
          ServiceOptions options);
  /// Stops the loop. No handler may run any more.
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  http::Handlers handlers();
  /// Does what time demands of the requests that are served. Call it every 100 ms or so.
  void tick();
  /// From now on nothing new is served: requests that wait are refused, others may end.
  void begin_drain();
  /// Ends all requests with an error.
  void end_all();
  /// Whether no request is being served.
  bool is_idle() const;
  Metrics& metrics() { return metrics_; }
  void set_connections(std::function<std::uint64_t()> count) { connections_ = std::move(count); }

 private:
  struct Call;
  using Handler = void (Service::*)(Call&);
  struct Route;
  static const std::vector<Route>& routes();

  std::optional<http::Response> check(const http::RequestHead& head);
  void handle(http::Request request, http::ResponderPtr responder);
  void run(const std::shared_ptr<Call>& call, Handler handler);
  void answer_error(Call& call, const std::exception& error);
  void note_fault(int status, const std::string& message, const std::string& request);
  std::string next_id();
  http::Headers headers_of(const std::string& id) const;

  void complete(Call& call);
  void chat(Call& call);
  void serve_generation(Call& call, TaskPlan plan, const api::QuiverOptions& options);
  bool resolve(Call& call, Handler again, const std::string& model, const api::QuiverOptions& options);
  void list_models(Call& call);
  void show_model(Call& call);
  void tokenize(Call& call);
  void detokenize(Call& call);
  void tokenizer_info(Call& call);
  void load_adapter(Call& call);
  void unload_adapter(Call& call);
  void finish_unloads();
  void library(Call& call);
  void route_text(Call& call);
  void show_status(Call& call);
  void show_metrics(Call& call);
  void health(Call& call);
  void ready(Call& call);
  void page(Call& call);
  void send_json(Call& call, std::string body) const;
  void expect_ready() const;
  void log(const GenerationTask::Outcome& outcome) const;

  Models& models_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate* chat_template_;
  EngineLoop& loop_;
  ServiceOptions options_;
  Metrics metrics_;
  std::function<std::uint64_t()> connections_;
  std::atomic<bool> is_draining_{false};
  std::atomic<std::uint64_t> next_request_{1};
  std::string run_id_;  // begins the ids of requests

  mutable std::mutex mutex_;  // of what follows
  std::set<std::shared_ptr<GenerationTask>> tasks_;
  struct Unload {
    std::shared_ptr<Call> call;
    std::vector<std::weak_ptr<const schedule::Assignment>> in_use;
    std::string name;
    bool is_over() const;
  };
  std::vector<Unload> unloads_;  // whose answers wait until nobody uses the adapter
  struct Fault {
    double time = 0;  // seconds since 1970
    int status = 0;
    std::string message, request;
  };
  std::deque<Fault> faults_;                       // the last ones, the newest first
  std::map<std::string, std::uint64_t> requests_;  // by model
  std::uint64_t finished_ = 0, failed_ = 0, cancelled_ = 0;
  struct Sample {
    std::chrono::steady_clock::time_point time;
    std::uint64_t generated = 0, computed = 0;
  };
  std::deque<Sample> samples_;  // of the last seconds, for rates
  std::chrono::steady_clock::time_point start_;

  WorkerPool workers_;  // these end first: their work uses what stands above
  WorkerPool loader_;
};

}  // namespace quiver::serve
