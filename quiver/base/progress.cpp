#include "quiver/base/progress.h"

#include "quiver/base/error.h"

namespace quiver {
namespace {
std::atomic<bool> stop_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "request_stop is called from a signal handler");
}  // namespace

StopToken process_stop() noexcept { return StopToken(stop_flag); }
void request_stop() noexcept { stop_flag.store(true, std::memory_order_relaxed); }
void clear_stop() noexcept { stop_flag.store(false, std::memory_order_relaxed); }
bool stop_requested() noexcept { return process_stop().stop_requested(); }
void throw_if_stopped(std::string_view where) { process_stop().throw_if_stopped(where); }

void StopToken::throw_if_stopped(std::string_view where) const {
  if (stop_requested()) fail(ErrorKind::kInterrupted, "stopped {}; run the same command again to go on", where);
}

}  // namespace quiver
