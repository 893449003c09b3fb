// Shared by the tests of this folder.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::tasks {

/// An empty folder, removed at the end of the test.
class TaskFolder {
 public:
  TaskFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "quiver-tasks-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) fail(ErrorKind::kIo, "cannot create '{}'", pattern);
    path_ = pattern;
  }
  ~TaskFolder() { std::filesystem::remove_all(path_); }
  TaskFolder(const TaskFolder&) = delete;
  TaskFolder& operator=(const TaskFolder&) = delete;

  /// Writes a file, and its folder if need be; where it is.
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
    return path_ / name;
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

template <typename Items>
std::vector<std::string> ids_of(const Items& items) {
  std::vector<std::string> ids;
  for (const auto& item : items) ids.push_back(item.id);
  return ids;
}

}  // namespace quiver::tasks
