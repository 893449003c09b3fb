// How many cores this process may use.
#pragma once

#include <cstdint>
#include <filesystem>

namespace quiver {

/// At least 1: the smaller of the cores in the affinity mask and the processor time that the control groups allow, rounded up to whole
/// cores (cpu.max, or cpu.cfs_quota_us over cpu.cfs_period_us). The load of other processes does not count: it changes, and results depend
/// on the number of threads in their last bits. `root` is where /proc and /sys are, for tests.
std::int64_t usable_cores(const std::filesystem::path& root = "/");

}  // namespace quiver
