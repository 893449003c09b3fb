// What the program shows while it works.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <set>
#include <string>

#include "quiver/base/progress.h"

namespace quiver::cli {

/// On a terminal: one line that is redrawn, with a bar, rate and time to go. Elsewhere: a plain line at the start and
/// end of each stage and every half minute. Always on stderr. Messages name the options of `command` by their flags (flags.h).
class TerminalProgress : public Progress {
 public:
  explicit TerminalProgress(const CLI::App& command);
  ~TerminalProgress() override;
  void begin(std::string_view stage, std::int64_t total, std::string_view unit) override;
  void advance(std::int64_t count, std::string_view note) override;
  void resume(std::int64_t count) override;
  void end() override;
  void message(std::string_view line) override;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(bool final);
  std::string line(int width) const;

  const CLI::App& command_;
  bool is_terminal_;
  std::set<std::string, std::less<>> said_;  // messages: what was said once tells nothing new
  bool active_ = false;
  std::string stage_, unit_, note_;
  std::int64_t total_ = 0, done_ = 0, done_before_ = 0;
  Clock::time_point start_, last_draw_;
};

/// Columns of the terminal on `fd`, 80 if it is none.
int terminal_width(int fd);

/// From now on, the first Ctrl-C or SIGTERM asks for a stop at the next safe point, the second ends the program at once.
void catch_interrupts();
/// From now on, Ctrl-C ends the program at once.
void release_interrupts();

}  // namespace quiver::cli
