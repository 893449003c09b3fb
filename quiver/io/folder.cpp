#include "quiver/io/folder.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/system_error.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

/// "folder/" and "folder" are one folder; its name is needed to make a sibling.
fs::path without_final_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

void rename_or_fail(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_errno("rename into place", to, errno);
}

/// Swaps two folders in one step; false if this file system cannot.
bool exchange(const fs::path& a, const fs::path& b) { return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0; }

}  // namespace

AtomicFolderWriter::AtomicFolderWriter(const fs::path& path) : path_(without_final_slash(path)), temp_(temp_sibling(path_)) {
  std::error_code error;
  if (fs::create_directory(temp_, error)) return;
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    fail(ErrorKind::kNotFound, "cannot create folder '{}': there is no folder '{}' (create it first)", path_.native(),
         folder_of(path_).native());
  }
  fail_errno("create folder", path_, error.value());
}

AtomicFolderWriter::~AtomicFolderWriter() {
  remove_tree(temp_);  // after commit this is what was replaced, or nothing
}

void AtomicFolderWriter::commit(IfExists if_exists) {
  if (is_done_) fail(ErrorKind::kInternal, "folder '{}' is committed twice", path_.native());
  is_done_ = true;
  flush_folder(temp_);
  std::error_code error;
  const bool exists = fs::exists(fs::symlink_status(path_, error));
  const bool is_empty = exists && fs::is_directory(path_, error) && fs::is_empty(path_, error);
  if (exists && !is_empty && if_exists == IfExists::kRefuse) {
    fail(ErrorKind::kUsage, "'{}' exists already: choose another name, or `force=true` replaces it", path_.native());
  }
  if (!exists || is_empty) {
    rename_or_fail(temp_, path_);  // fails, and loses nothing, if somebody fills the folder at this moment
  } else if (!exchange(temp_, path_)) {
    const auto old = temp_sibling(path_);
    rename_or_fail(path_, old);
    rename_or_fail(temp_, path_);
    remove_tree(old);
  }
  flush_folder(folder_of(path_));
}

fs::path beside(const fs::path& path, std::string_view suffix) { return without_final_slash(path).native() + std::string(suffix); }

std::error_code remove_tree(const fs::path& path) {
  constexpr int kOpenFolders = 16;
  const auto remove_one = [](const char* name, const struct stat*, int, FTW*) { return ::remove(name) == 0 ? 0 : errno; };
  const int result = ::nftw(path.c_str(), remove_one, kOpenFolders, FTW_DEPTH | FTW_PHYS);
  const int error = result < 0 ? errno : result;
  return error == ENOENT ? std::error_code() : std::error_code(error, std::generic_category());
}

void check_holds_only(const fs::path& folder, std::span<const std::string_view> names) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().native();
    if (std::ranges::find(names, name) == names.end()) {
      fail(ErrorKind::kUsage,
           "'{}' holds '{}', which this command does not write: the folder is neither replaced nor removed, even by force", folder.string(),
           name);
    }
  }
  if (error) fail_errno("read folder", folder, error.value());
}

void remove_folder(const fs::path& path) {
  const auto folder = without_final_slash(path);
  const auto doomed = temp_sibling(folder);
  if (::rename(folder.c_str(), doomed.c_str()) != 0) {
    if (errno == ENOENT) fail(ErrorKind::kNotFound, "there is no folder '{}' to remove", folder.native());
    fail_errno("remove", folder, errno);
  }
  if (const auto error = remove_tree(doomed)) fail_errno("remove", doomed, error.value());
}

}  // namespace quiver::io
