#include "quiver/base/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include "quiver/base/control_group.h"

namespace quiver {
namespace {

std::int64_t affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max<std::int64_t>(std::thread::hardware_concurrency(), 1);  // more than 1024 processors
}

/// Microseconds of processor time per period of a group; nothing without a limit.
struct Quota {
  std::int64_t quota = 0, period = 0;
};

std::optional<Quota> read_quota(const std::filesystem::path& folder) {
  Quota limit;
  if (std::ifstream file(folder / "cpu.max"); file >> limit.quota >> limit.period) return limit;  // "max" is no number
  std::ifstream quota(folder / "cpu.cfs_quota_us"), period(folder / "cpu.cfs_period_us");
  if (quota >> limit.quota && period >> limit.period) return limit;
  return {};
}

}  // namespace

std::int64_t usable_cores(const std::filesystem::path& root) {
  auto cores = affinity_cores();
  for (const auto& folder : control_group_folders("cpu", root)) {
    const auto limit = read_quota(folder);
    if (!limit || limit->quota <= 0 || limit->period <= 0) continue;  // version 1 writes -1 for no limit
    cores = std::min(cores, (limit->quota - 1) / limit->period + 1);
  }
  return std::max<std::int64_t>(cores, 1);
}

}  // namespace quiver
