#include "quiver/backend/phase_team.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::backend {
namespace {

class PhaseTeamTest : public ::testing::TestWithParam<int> {
 protected:
  PhaseTeamTest() { at::set_num_threads(GetParam()); }
  ~PhaseTeamTest() override { at::set_num_threads(threads_); }
  int threads_ = at::get_num_threads();
};

/// Every item sees what all items of the phase before have written, and what `then` made of it.
TEST_P(PhaseTeamTest, GoesThroughPhasesInOrder) {
  constexpr std::int64_t kPhases = 2000;
  std::vector<std::int64_t> values(7, 0);
  std::int64_t sum = 0;
  std::atomic<int> num_wrong = 0;
  PhaseTeam::run([&](PhaseTeam& team, int thread) {
    EXPECT_EQ(team.num_threads(), GetParam());
    EXPECT_LT(thread, GetParam());
    PhaseTeam::Place place;
    for (std::int64_t phase = 0; phase < kPhases; ++phase) {
      const auto count = phase % 8;  // none, too
      team.phase(
          place, count,
          [&](std::int64_t item) {
            if (values[static_cast<std::size_t>(item)] > phase || sum != phase) ++num_wrong;
            values[static_cast<std::size_t>(item)] = phase;
          },
          [&] {
            for (std::int64_t item = 0; item < count; ++item) num_wrong += values[static_cast<std::size_t>(item)] != phase;
            ++sum;
          });
    }
  });
  EXPECT_EQ(sum, kPhases);
  EXPECT_EQ(num_wrong, 0);
}

TEST_P(PhaseTeamTest, DoesNotWaitForAThreadThatIsAway) {
  std::atomic<std::int64_t> num_done = 0;
  std::atomic<std::int64_t> done_meanwhile = 0;
  PhaseTeam::run([&](PhaseTeam& team, int thread) {
    if (thread > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (thread > 0) done_meanwhile = num_done.load();
    PhaseTeam::Place place;
    for (int phase = 0; phase < 100; ++phase) {
      team.phase(
          place, 4, [&](std::int64_t) { ++num_done; }, [] {});
    }
  });
  EXPECT_EQ(num_done, 400);
  if (GetParam() == 2) {
    EXPECT_EQ(done_meanwhile, 400);
  }
}

TEST_P(PhaseTeamTest, WakesThreadsThatSleep) {
  std::int64_t sum = 0;
  PhaseTeam::run([&](PhaseTeam& team, int) {
    PhaseTeam::Place place;
    for (int phase = 0; phase < 20; ++phase) {
      team.phase(
          place, 1, [&](std::int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }, [&] { ++sum; });
    }
  });
  EXPECT_EQ(sum, 20);
}

TEST_P(PhaseTeamTest, RethrowsTheFirstExceptionAndSkipsTheRest) {
  std::atomic<int> num_later = 0;
  const auto run = [&](bool in_then) {
    PhaseTeam::run([&](PhaseTeam& team, int) {
      PhaseTeam::Place place;
      const auto fail_if = [](bool does) {
        if (does) fail(ErrorKind::kIo, "of an item");
      };
      team.phase(
          place, 3, [&](std::int64_t item) { fail_if(!in_then && item == 1); }, [&] { fail_if(in_then); });
      team.phase(
          place, 5, [&](std::int64_t) { ++num_later; }, [&] { ++num_later; });
    });
  };
  EXPECT_ERROR(run(false), ErrorKind::kIo, "of an item");
  EXPECT_ERROR(run(true), ErrorKind::kIo, "of an item");
  EXPECT_EQ(num_later, 0);
}

TEST_P(PhaseTeamTest, IsOneThreadWithinAParallelRegion) {
  std::atomic<int> num_members = 0, num_calls = 0;
  at::parallel_for(0, GetParam(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      ++num_calls;
      PhaseTeam::run([&](PhaseTeam& team, int) { num_members += team.num_threads(); });
    }
  });
  EXPECT_EQ(num_calls, GetParam());
  if (GetParam() > 1) {
    EXPECT_EQ(num_members, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, PhaseTeamTest, ::testing::Values(1, 2, 3));

}  // namespace
}  // namespace quiver::backend
