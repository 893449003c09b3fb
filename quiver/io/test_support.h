// Shared by the tests of this folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "quiver/base/error.h"
#include "quiver/io/folder.h"
#include "quiver/testing/message_of.h"

namespace quiver::io {

/// An empty folder, removed at the end of the test.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "quiver-io-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) fail(ErrorKind::kIo, "cannot create '{}'", pattern);
    path_ = pattern;
  }
  ~TempFolder() { remove_tree(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  std::int64_t num_files() const {
    return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
  }

 private:
  std::filesystem::path path_;
};

using testing::error_of;

}  // namespace quiver::io
