// The thread that computes: a scheduler with a queue of commands in front.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "quiver/schedule/scheduler.h"

namespace quiver::serve {

/// A request that was submitted.
using Ticket = std::uint64_t;

/// Called on the engine's thread with each event of a request; the last has `finish`. Must be quick and must not throw.
using OnEvent = std::function<void(schedule::Event)>;

struct Submission {
  schedule::Request request;
  OnEvent on_event;
};

struct LoopStatus {
  schedule::SchedulerCounts counts;
  double seconds_since_beat = 0;  ///< since the engine began its last step, while there is work; else 0
  double last_step_seconds = 0;
  std::uint64_t failed_steps = 0;
};

/// Runs a scheduler on a thread of its own. What happens to a request is told by its OnEvent alone; a request that cannot be scheduled and
/// one whose step throws end with Finish::kError and the error. A step that throws ends the requests that took part in it, and nothing
/// else. Thread-safe.
class EngineLoop {
 public:
  /// The engine must outlive the loop. `on_start` is called first on the thread.
  EngineLoop(schedule::Engine& engine, const schedule::SchedulerOptions& options, std::function<void()> on_start = {});
  /// As stop.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Submitted together, requests join together where there is room.
  std::vector<Ticket> submit(std::vector<Submission> submissions);
  /// The request ends without a further event, but for one that is on its way.
  void cancel(Ticket ticket);
  void set_paused(Ticket ticket, bool is_paused);
  /// Ends all requests that wait, or that were submitted and have not come to the scheduler yet, with `error`.
  void fail_waiting(std::exception_ptr error);
  /// Requests that have not ended.
  std::int64_t num_open() const { return num_open_.load(); }
  LoopStatus status() const;
  /// Ends the thread after its step. Requests that have not ended get no further event.
  void stop();

 private:
  struct Open {
    Ticket ticket = 0;
    OnEvent on_event;
    bool has_begun = false;  // an event has come
  };
  void run();
  void add(Ticket ticket, Submission submission);
  void step();
  void tell(schedule::Event event);
  void fail(schedule::RequestId id, const std::exception_ptr& error);

  // Of the engine's thread.
  schedule::Scheduler scheduler_;
  std::unordered_map<schedule::RequestId, Open> open_;
  std::unordered_map<Ticket, schedule::RequestId> id_of_;

  std::function<void()> on_start_;
  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::vector<std::function<void()>> commands_;  // for the engine's thread
  bool ends_ = false;
  bool has_work_ = false;
  std::chrono::steady_clock::time_point last_beat_;
  LoopStatus status_;

  std::atomic<std::int64_t> num_open_{0};
  std::atomic<Ticket> next_ticket_{1};
  std::thread thread_;
};

}  // namespace quiver::serve
