// Shared by the tests of this folder.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "quiver/io/test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::tasks {

/// An empty folder that files are written to, removed at the end of the test.
class TaskFolder : public io::TempFolder {
 public:
  /// Writes a file, and its folder if need be; where it is.
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path() / name).parent_path());
    std::ofstream(path() / name) << text;
    return path() / name;
  }
};

template <typename Items>
std::vector<std::string> ids_of(const Items& items) {
  std::vector<std::string> ids;
  for (const auto& item : items) ids.push_back(item.id);
  return ids;
}

}  // namespace quiver::tasks
