#include "quiver/base/memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <vector>

namespace quiver {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(AvailableMemory, IsWhatTheSystemAndItsGroupLeave) {
  const fs::path root = fs::temp_directory_path() / "quiver-memory-test";
  fs::remove_all(root);
  EXPECT_EQ(available_memory(root), std::nullopt);
  write(root / "proc/meminfo", "MemTotal:       8000 kB\nMemFree:   100 kB\nMemAvailable:    3000 kB\n");
  EXPECT_EQ(available_memory(root), 3000 * 1024);
  write(root / "proc/self/cgroup", "0::/job\n");
  write(root / "sys/fs/cgroup/memory.max", "max\n");
  write(root / "sys/fs/cgroup/memory.current", "1000\n");
  EXPECT_EQ(available_memory(root), 3000 * 1024);
  write(root / "sys/fs/cgroup/memory.max", "5000\n");
  EXPECT_EQ(available_memory(root), 4000);
  write(root / "sys/fs/cgroup/memory.stat", "anon 700\ninactive_file 300\n");
  EXPECT_EQ(available_memory(root), 4300);
  write(root / "sys/fs/cgroup/job/memory.max", "2000\n");
  write(root / "sys/fs/cgroup/job/memory.current", "500\n");
  EXPECT_EQ(available_memory(root), 1500);
  fs::remove_all(root);
}

TEST(AvailableMemory, IsWhatAGroupOfVersion1Leaves) {
  const fs::path root = fs::temp_directory_path() / "quiver-memory-v1-test";
  fs::remove_all(root);
  write(root / "proc/meminfo", "MemAvailable:    3000 kB\n");
  write(root / "proc/self/cgroup", "4:memory:/job\n0::/\n");
  write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // no limit
  write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", "700\n");
  EXPECT_EQ(available_memory(root), 3000 * 1024);
  write(root / "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000\n");
  write(root / "sys/fs/cgroup/memory/job/memory.usage_in_bytes", "900\n");
  write(root / "sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
  EXPECT_EQ(available_memory(root), 1200);
  fs::remove_all(root);
}

TEST(PeakMemory, IsAtLeastWhatIsHeld) {
  const auto before = peak_memory().value_or(0);
  const std::vector<char> held(64 << 20, 1);
  EXPECT_GE(peak_memory().value_or(0), before + (32 << 20));
  EXPECT_GE(peak_memory().value_or(0), static_cast<std::int64_t>(held.size()));
}

TEST(AvailableMemory, IsKnownHere) { EXPECT_GT(available_memory().value_or(0), 1 << 20); }

}  // namespace
}  // namespace quiver
