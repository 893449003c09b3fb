// The Linux control groups of this process: where their limits stand.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace quiver {

/// The folders of a controller ("cpu", "memory") from this process's own group to the root group. Version 2 of control groups has one tree
/// for all controllers, version 1 one each. Folders that are not there are left out: a container may see its own group alone.
/// `root` is where /proc and /sys are, for tests.
std::vector<std::filesystem::path> control_group_folders(const std::string& controller, const std::filesystem::path& root = "/");

}  // namespace quiver
