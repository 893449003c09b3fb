#include "quiver/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "quiver/base/error.h"
#include "quiver/cli/flags.h"

namespace quiver::cli {
namespace {

std::string duration(double seconds) {
  const auto s = std::llround(seconds);
  if (s < 60) return format("{} s", s);
  if (s < 3600) return format("{}:{:02}", s / 60, s % 60);
  return format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string amount(double value) {
  if (value >= 1e6) return format("{:.1f}M", value / 1e6);
  if (value >= 1e4) return format("{:.1f}k", value / 1e3);
  return format("{:.0f}", value);
}

}  // namespace

int terminal_width(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const std::string_view text = columns == nullptr ? "" : columns;
  int given = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), given);
  return error == std::errc() && given > 0 ? given : 80;
}

TerminalProgress::TerminalProgress(const CLI::App& command) : command_(command), is_terminal_(isatty(STDERR_FILENO) == 1) {}
TerminalProgress::~TerminalProgress() { end(); }

void TerminalProgress::begin(std::string_view stage, std::int64_t total, std::string_view unit) {
  end();
  stage_ = stage;
  unit_ = unit;
  note_.clear();
  total_ = total;
  done_ = done_before_ = 0;
  active_ = true;
  start_ = last_draw_ = Clock::now();
  if (is_terminal_) draw(false);
}

void TerminalProgress::advance(std::int64_t count, std::string_view note) {
  done_ += count;
  if (!note.empty()) note_ = note;
  const auto since = std::chrono::duration<double>(Clock::now() - last_draw_).count();
  if (active_ && since >= (is_terminal_ ? 0.1 : 30.0)) draw(false);
}

void TerminalProgress::resume(std::int64_t count) {
  done_ += count;
  done_before_ += count;
}

void TerminalProgress::end() {
  if (!active_) return;
  active_ = false;
  draw(true);
}

void TerminalProgress::message(std::string_view text) {
  if (!said_.emplace(text).second) return;
  const auto shown = with_flags(command_, text);
  if (is_terminal_ && active_) std::fputs("\r\x1b[K", stderr);
  std::fprintf(stderr, "%.*s\n", static_cast<int>(shown.size()), shown.data());
  if (is_terminal_ && active_) draw(false);
}

std::string TerminalProgress::line(int width) const {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 1.0;
  const double rate = seconds > 0 ? static_cast<double>(done_ - done_before_) / seconds : 0;
  std::string right = format("{:3.0f}% {}/{} {} {}/s {}", 100 * share, amount(static_cast<double>(done_)),
                             amount(static_cast<double>(total_)), unit_, amount(rate), duration(seconds));
  if (active_ && rate > 0 && done_ < total_) right += ", " + duration(static_cast<double>(total_ - done_) / rate) + " to go";
  if (!note_.empty()) right += ", " + note_;
  const int room = width - 1 - static_cast<int>(right.size()) - 1;
  std::string left = stage_;
  constexpr int kBar = 20;
  if (room < 8) return right.substr(0, static_cast<std::size_t>(std::max(width - 1, 0)));
  const bool with_bar = is_terminal_ && room > kBar + 16;
  const auto name_room = static_cast<std::size_t>(with_bar ? room - kBar - 3 : room);
  if (left.size() > name_room) left = left.substr(0, name_room - 2) + "..";
  if (left.size() > name_room) left.resize(name_room);
  if (with_bar) {
    const int full = static_cast<int>(share * kBar);
    left += " [" + std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(kBar - full), '.') + "]";
  }
  return left + " " + right;
}

void TerminalProgress::draw(bool final) {
  last_draw_ = Clock::now();
  if (is_terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s%s", line(terminal_width(STDERR_FILENO)).c_str(), final ? "\n" : "");
    std::fflush(stderr);
  } else {
    std::fprintf(stderr, "%s\n", line(200).c_str());
  }
}

namespace {
void on_interrupt(int signal) {
  request_stop();
  std::signal(signal, SIG_DFL);
}
}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

void release_interrupts() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace quiver::cli
