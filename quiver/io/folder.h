// Folders that appear completely or not at all.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>

namespace quiver::io {

/// What commit() may do with a folder that is already there. An empty one is always replaced.
enum class IfExists { kRefuse, kReplace };

/// Fills a folder under a temporary name beside `path`; commit() flushes it and renames it to `path`. Until then, and
/// after any failure, what was at `path` before stays whole, and the destructor removes the temporary folder.
class AtomicFolderWriter {
 public:
  /// Throws kNotFound if the parent folder does not exist, kIo if a folder cannot be created in it.
  explicit AtomicFolderWriter(const std::filesystem::path& path);
  ~AtomicFolderWriter();
  AtomicFolderWriter(const AtomicFolderWriter&) = delete;
  AtomicFolderWriter& operator=(const AtomicFolderWriter&) = delete;

  /// Where to write the files, which must be flushed already (write_file_atomic does).
  const std::filesystem::path& temp() const { return temp_; }
  /// Publishes the folder; call once, last. A folder that is replaced is exchanged in one step where the file system
  /// can, and then removed with all that is in it. Throws kUsage if `path` exists and is not to be replaced, kIo, or
  /// kInternal when called twice.
  void commit(IfExists if_exists);

 private:
  std::filesystem::path path_;
  std::filesystem::path temp_;
  bool is_done_ = false;
};

/// The path of a file or folder beside `path` that is named after it: "new" and "new/" with ".parts" give "new.parts".
std::filesystem::path beside(const std::filesystem::path& path, std::string_view suffix);

/// Removes a file, or a folder with all that is in it; symbolic links are removed, not followed. Returns the first error, none if there is
/// nothing at `path`. In place of std::filesystem::remove_all, which crashes in programs by GCC 13 with the CUDA wheel of libtorch 2.11:
/// libtorch exports a part of the std::filesystem that it was built with, which then takes the place of ours.
std::error_code remove_tree(const std::filesystem::path& path);

/// Throws kUsage if the folder holds anything but entries of these names: whoever replaces the folder would lose it. kIo if it cannot be
/// read.
void check_holds_only(const std::filesystem::path& folder, std::span<const std::string_view> names);

/// Takes a folder away in one step (a rename), then removes it with all that is in it. Throws kNotFound or kIo.
void remove_folder(const std::filesystem::path& path);

}  // namespace quiver::io
