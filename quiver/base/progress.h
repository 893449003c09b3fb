// How long work tells that it goes on, and learns that it should stop. The library never prints; the program
// implements Progress.
#pragma once

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

/// True once the user has asked the program to stop (request_stop, from a signal handler). Long work asks at its
/// safe points and calls throw_if_stopped.
bool stop_requested() noexcept;
void request_stop() noexcept;
/// Forgets the request: what it stopped has ended, and other work goes on.
void clear_stop() noexcept;
/// Throws kInterrupted, naming the safe point ("stopped after step 12 of adapter 'qnli'; run again to go on").
void throw_if_stopped(std::string_view where);

}  // namespace quiver
