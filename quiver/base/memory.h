// How much memory there is to use, and was used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace quiver {

/// Bytes this process may still take without swapping: what Linux reports as available, or what its control groups leave
/// if that is less. Nothing where neither can be read. `root` is where /proc and /sys are, for tests.
std::optional<std::int64_t> available_memory(const std::filesystem::path& root = "/");

/// The most bytes this process has held in memory so far (VmHWM of /proc/self/status).
std::optional<std::int64_t> peak_memory();

}  // namespace quiver
