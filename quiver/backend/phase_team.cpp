#include "quiver/backend/phase_team.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include <chrono>

namespace quiver::backend {
namespace {

constexpr std::chrono::microseconds kSpin{40};
constexpr int kPausesBetweenLooks = 16;  // at the clock
constexpr int kFirstPauses = 64;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void PhaseTeam::run(const std::function<void(PhaseTeam&, int)>& member) {
  PhaseTeam team;
  const int wanted = at::in_parallel_region() ? 1 : at::get_num_threads();
  const auto go = [&](int thread) noexcept { member(team, thread); };
  if (wanted == 1) {
    go(0);
  } else {
#pragma omp parallel num_threads(wanted)
    {
      // Before any thread counts on the others. It is the number that libgomp gave, the same for all.
      if (omp_get_thread_num() == 0) team.num_threads_ = omp_get_num_threads();
#pragma omp barrier
      go(omp_get_thread_num());
    }
  }
  if (team.error_ != nullptr) std::rethrow_exception(team.error_);
}

void PhaseTeam::begin(std::uint32_t phase) {
  next_.store(static_cast<std::uint64_t>(phase) << 32, std::memory_order_release);
  phase_.store(phase);
  if (num_sleeping_.load() > 0) phase_.notify_all();
}

void PhaseTeam::wait_beyond(std::uint32_t phase) {
  const auto is_over = [&] { return phase_.load(std::memory_order_acquire) - phase - 1 < 1u << 31; };
  const auto look = [&](int pauses) {
    for (int i = 0; i < pauses; ++i) {
      if (is_over()) return true;
      pause();
    }
    return false;
  };
  if (look(kFirstPauses)) return;
  for (const auto end = std::chrono::steady_clock::now() + kSpin; std::chrono::steady_clock::now() < end;) {
    if (look(kPausesBetweenLooks)) return;
  }
  num_sleeping_.fetch_add(1);
  while (!is_over()) phase_.wait(phase);
  num_sleeping_.fetch_sub(1);
}

}  // namespace quiver::backend
