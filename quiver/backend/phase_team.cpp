#include "quiver/backend/phase_team.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include <chrono>

namespace quiver::backend {
namespace {

constexpr std::chrono::microseconds kSpin{40};
constexpr int kPausesBetweenLooks = 64;  // at the clock

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
#pragma omp single
      team.num_threads_ = omp_get_num_threads();
      go(omp_get_thread_num());
    }
  }
  if (team.error_ != nullptr) std::rethrow_exception(team.error_);
}

void PhaseTeam::wait_beyond(std::uint32_t phase) {
  const auto is_over = [&] { return phase_.load(std::memory_order_acquire) != phase; };
  for (int i = 0; i < kPausesBetweenLooks; ++i) {
    if (is_over()) return;
    pause();
  }
  for (const auto end = std::chrono::steady_clock::now() + kSpin; std::chrono::steady_clock::now() < end;) {
    for (int i = 0; i < kPausesBetweenLooks / 4; ++i) {
      if (is_over()) return;
      pause();
    }
  }
  num_sleeping_.fetch_add(1);
  while (!is_over()) phase_.wait(phase);
  num_sleeping_.fetch_sub(1);
}

}  // namespace quiver::backend
