// Threads that go through many short phases together.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace quiver::backend {

/// The threads of one parallel region, which share out the items of one phase after another. A phase is over when its items are done,
/// whoever did them. So a thread whose core another process has taken holds up the team by the item that it was at, and not by its absence.
/// A thread that waits spins for some 40 us and then sleeps.
///
/// The end of a phase costs about 0.5 us on two cores, where a parallel region of its own would cost several times that.
class PhaseTeam {
 public:
  /// Calls member(team, thread) on as many threads as libtorch uses: on the calling thread alone within a parallel region. Every member
  /// must call the same phases, and may throw within them alone. Rethrows the first exception; what follows it is skipped.
  static void run(const std::function<void(PhaseTeam&, int thread)>& member);

  PhaseTeam(const PhaseTeam&) = delete;
  PhaseTeam& operator=(const PhaseTeam&) = delete;

  int num_threads() const { return num_threads_; }

  /// What a member knows of where it is.
  class Place {
    friend class PhaseTeam;
    std::uint32_t phase = 0;
  };
  /// Calls work(item) for every item in [0, count), each on one thread, and then `then()` once. Returns when all that is done.
  template <typename Work, typename Then>
  void phase(Place& place, std::int64_t count, const Work& work, const Then& then) {
    const auto phase = place.phase++;
    if (num_threads_ == 1) {
      for (std::int64_t item = 0; item < count; ++item) guarded([&] { work(item); });
      return guarded(then);
    }
    const auto items = static_cast<std::uint32_t>(count > 0 ? count : 1);
    for (auto item = take(phase, items); item < items; item = take(phase, items)) {
      if (count > 0) guarded([&] { work(static_cast<std::int64_t>(item)); });
      if (num_done_.fetch_add(1, std::memory_order_acq_rel) + 1 < items) continue;
      guarded(then);
      num_done_.store(0, std::memory_order_relaxed);
      begin(phase + 1);
      return;
    }
    wait_beyond(phase);
  }

 private:
  PhaseTeam() = default;

  /// The next item of a phase; `count` if there is none left.
  std::uint32_t take(std::uint32_t phase, std::uint32_t count) {
    auto next = next_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(next >> 32) == phase && static_cast<std::uint32_t>(next) < count) {
      if (next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) return static_cast<std::uint32_t>(next);
    }
    return count;
  }

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

  void begin(std::uint32_t phase);
  void wait_beyond(std::uint32_t phase);

  int num_threads_ = 1;
  alignas(64) std::atomic<std::uint64_t> next_{0};  // the phase, and its next item
  alignas(64) std::atomic<std::uint32_t> num_done_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
  std::atomic<int> num_sleeping_{0};
  std::atomic<bool> has_failed_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace quiver::backend
