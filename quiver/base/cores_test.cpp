#include "quiver/base/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <fstream>
#include <string>
#include <thread>

#include "quiver/base/control_group.h"

namespace quiver {
namespace {

namespace fs = std::filesystem;

class Cores : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(root_); }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  const fs::path root_ = fs::temp_directory_path() / "quiver-cores-test";
  const std::int64_t all_ = usable_cores("/nowhere");
};

TEST_F(Cores, AreThoseOfTheAffinityMask) {
  std::thread([] {
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(usable_cores("/nowhere"), 1);
  }).join();
}

TEST_F(Cores, AreBoundedByAQuotaOfVersion2) {
  write("proc/self/cgroup", "0::/slice/unit\n");
  write("sys/fs/cgroup/slice/unit/cpu.max", "max 100000\n");
  EXPECT_EQ(usable_cores(root_), all_);
  write("sys/fs/cgroup/slice/cpu.max", "50000 100000\n");  // a parent's limit holds for its children
  EXPECT_EQ(usable_cores(root_), 1);
  write("sys/fs/cgroup/slice/cpu.max", "100001 100000\n");
  EXPECT_EQ(usable_cores(root_), std::min<std::int64_t>(all_, 2));
}

TEST_F(Cores, AreBoundedByAQuotaOfVersion1) {
  write("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/b\n0::/\n");
  write("sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(usable_cores(root_), all_);
  write("sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us", "100000\n");
  EXPECT_EQ(usable_cores(root_), 1);
}

TEST_F(Cores, OfAContainerThatSeesItsOwnGroupAsTheRoot) {
  write("proc/self/cgroup", "0::/../outside\n");
  write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(usable_cores(root_), 1);
}

TEST_F(Cores, GroupsStandFromTheOwnToTheRoot) {
  write("proc/self/cgroup", "0::/slice/unit\n");
  write("sys/fs/cgroup/slice/unit/x", "");
  const auto tree = root_ / "sys/fs/cgroup";
  EXPECT_EQ(control_group_folders("cpu", root_), (std::vector<fs::path>{tree / "slice/unit", tree / "slice", tree}));
}

}  // namespace
}  // namespace quiver
