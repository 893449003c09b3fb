// Folders of intermediate files, which a command makes, takes up again after a kill, and removes when it is done.
#pragma once

#include <filesystem>
#include <set>
#include <string>

namespace quiver::io {

/// A folder that holds a marker file. The marker lists the names of all files that were made here: nothing else is ever replaced or
/// removed.
class WorkFolder {
 public:
  /// No folder: file() must not be called, remove() does nothing.
  WorkFolder() = default;
  /// Takes up the folder, or keeps its name until the first file is made. An empty path is no folder. Throws kUsage if something is at
  /// `path` that is neither an empty folder nor one with a marker, kIo if it cannot be read.
  explicit WorkFolder(std::filesystem::path path);

  bool is_set() const { return !path_.empty(); }
  const std::filesystem::path& path() const { return path_; }
  /// The path of a file of this folder, for reading and writing. The first call makes the folder; the name stands in the marker before it
  /// is returned. Throws kUsage if a file of this name is there that the marker does not list, kIo.
  std::filesystem::path file(const std::string& name);
  /// Removes the files that the marker lists, the marker, and the folder if nothing else is in it.
  void remove();

 private:
  void write_marker() const;

  std::filesystem::path path_;
  std::set<std::string> names_;
};

}  // namespace quiver::io
