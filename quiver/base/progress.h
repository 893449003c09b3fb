// How long work tells that it goes on, and learns that it should stop. The library never prints; the program
// implements Progress.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace quiver {

/// Watches long work. Calls come from one thread.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A stage of `total` units starts ("train task363", 4096, "tokens"). Ends the stage before.
  virtual void begin(std::string_view stage, std::int64_t total, std::string_view unit) = 0;
  /// `count` more units are done; `note` is a short figure to show ("loss 1.23").
  virtual void advance(std::int64_t count, std::string_view note) = 0;
  /// `count` units were done before this run: they are no part of its rate.
  virtual void resume(std::int64_t count) = 0;
  /// The stage is over.
  virtual void end() = 0;
  /// One line of information.
  virtual void message(std::string_view line) = 0;
};

/// Watches nothing.
class NoProgress : public Progress {
 public:
  void begin(std::string_view, std::int64_t, std::string_view) override {}
  void advance(std::int64_t, std::string_view) override {}
  void resume(std::int64_t) override {}
  void end() override {}
  void message(std::string_view) override {}
};

/// Tells work whether it should stop: the flag of whoever may stop it, which must outlive the token. A value; copies ask the same flag.
/// Thread-safe. Long work takes a token as an argument and asks it at its safe points.
class StopToken {
 public:
  /// Never stops.
  StopToken() = default;
  explicit StopToken(const std::atomic<bool>& flag) : flag_(&flag) {}
  bool stop_requested() const noexcept { return flag_ != nullptr && flag_->load(std::memory_order_relaxed); }
  /// Throws kInterrupted, naming the safe point ("stopped after step 12 of adapter 'qnli'; run again to go on").
  void throw_if_stopped(std::string_view where) const;

 private:
  const std::atomic<bool>* flag_ = nullptr;
};

/// The token of the whole process. Its flag is set by request_stop, from a signal handler.
StopToken process_stop() noexcept;
void request_stop() noexcept;
/// Forgets the request: what it stopped has ended, and other work goes on.
void clear_stop() noexcept;
/// The same for work that takes no token: process_stop().
bool stop_requested() noexcept;
void throw_if_stopped(std::string_view where);

}  // namespace quiver
