// Threads that go through many short phases together.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace quiver::backend {

/// The threads of one parallel region. They share out the items of a phase and wait for each other at its end: about 0.5 us on two cores,
/// where a parallel region for each phase would cost several times that. A thread that waits spins for some 40 us and then sleeps, so that
/// the team advances where another process takes a core.
class PhaseTeam {
 public:
  /// Calls member(team, thread) on as many threads as libtorch uses: on the calling thread alone within a parallel region. Every member
  /// must call the same phases, and may throw within them alone. Rethrows the first exception of a phase, whose successors are skipped.
  static void run(const std::function<void(PhaseTeam&, int thread)>& member);

  PhaseTeam(const PhaseTeam&) = delete;
  PhaseTeam& operator=(const PhaseTeam&) = delete;

  int num_threads() const { return num_threads_; }
  /// Calls work(item) for every item in [0, count), each by one thread, and then `then()` once. Returns after that, on every thread.
  template <typename Work, typename Then>
  void phase(std::int64_t count, const Work& work, const Then& then) {
    const auto all = [&] {
      for (auto item = take(); item < count; item = take()) work(item);
    };
    guarded(all);
    arrive([&] { guarded(then); });
  }

 private:
  PhaseTeam() = default;
  std::int64_t take() { return num_threads_ == 1 ? alone_++ : next_.fetch_add(1, std::memory_order_relaxed); }

  template <typename F>
  void guarded(const F& f) {
    if (has_failed_.load(std::memory_order_relaxed)) return;
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (error_ == nullptr) error_ = std::current_exception();
      has_failed_.store(true, std::memory_order_relaxed);
    }
  }

  /// A barrier. The last to arrive calls `then` before it lets the others go.
  template <typename Then>
  void arrive(const Then& then) {
    if (num_threads_ == 1) {
      alone_ = 0;
      return then();
    }
    const auto phase = phase_.load(std::memory_order_relaxed);
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) < num_threads_ - 1) return wait_beyond(phase);
    then();
    next_.store(0, std::memory_order_relaxed);
    num_arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1);
    if (num_sleeping_.load() > 0) phase_.notify_all();
  }
  void wait_beyond(std::uint32_t phase);

  int num_threads_ = 1;
  std::int64_t alone_ = 0;
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<int> num_arrived_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  std::atomic<int> num_sleeping_{0};
  std::atomic<bool> has_failed_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace quiver::backend
