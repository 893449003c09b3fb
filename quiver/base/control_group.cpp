#include "quiver/base/control_group.h"

#include <algorithm>
#include <fstream>
#include <string_view>
#include <system_error>

namespace quiver {
namespace {

namespace fs = std::filesystem;

/// Whether a comma-separated list holds a word.
bool lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

void add_with_parents(const fs::path& tree, const fs::path& group, std::vector<fs::path>& folders) {
  std::error_code ignored;
  const bool is_outside = std::ranges::find(group, "..") != group.end();  // the group is above what a container sees
  for (auto path = is_outside ? fs::path() : group.relative_path();; path = path.parent_path()) {
    const auto folder = path.empty() ? tree : tree / path;
    if (fs::is_directory(folder, ignored)) folders.push_back(folder);
    if (path.empty()) return;
  }
}

}  // namespace

std::vector<fs::path> control_group_folders(const std::string& controller, const fs::path& root) {
  // Lines of /proc/self/cgroup: "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1.
  std::vector<fs::path> folders;
  const auto groups = root / "sys/fs/cgroup";
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const auto controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      add_with_parents(groups, group, folders);
    } else if (lists(controllers, controller)) {
      add_with_parents(groups / controllers, group, folders);
      if (controllers != controller) add_with_parents(groups / controller, group, folders);
    }
  }
  return folders;
}

}  // namespace quiver
