#include "quiver/io/work_folder.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/file.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = ".quiver-work";
constexpr std::string_view kHead = "Intermediate files of Quiver, which it may remove:\n";

fs::file_status status_of(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (status.type() == fs::file_type::none) fail(ErrorKind::kIo, "cannot examine '{}': {}", path.string(), error.message());
  return status;
}

bool is_there(const fs::path& path) { return status_of(path).type() != fs::file_type::not_found; }

/// What a kill in the middle of a write left of a file of this name: temp_sibling's names.
bool is_leftover(const fs::path& path, const std::string& name) {
  const std::string file = path.filename().native();
  return file.starts_with("." + name + ".") && file.ends_with(".tmp");
}

bool holds_nothing_but_leftovers(const fs::path& folder, const std::string& name) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (!is_leftover(entry.path(), name)) return false;
  }
  if (error) fail(ErrorKind::kIo, "cannot read folder '{}': {}", folder.string(), error.message());
  return true;
}

}  // namespace

WorkFolder::WorkFolder(fs::path path) : path_(std::move(path)) {
  if (path_.empty() || !is_there(path_)) return;
  if (!fs::is_directory(status_of(path_)) || (!is_there(path_ / kMarker) && !holds_nothing_but_leftovers(path_, kMarker))) {
    fail(ErrorKind::kUsage,
         "'{}' is needed for intermediate files, but it exists and was not made for them (it has no {}): move it away, or choose another "
         "name",
         path_.string(), kMarker);
  }
  if (!is_there(path_ / kMarker)) return;
  const auto text = read_text_file(path_ / kMarker);
  if (!text.starts_with(kHead))
    fail(ErrorKind::kBadFormat, "'{}' does not begin as a marker of Quiver: remove the folder", (path_ / kMarker).string());
  for (std::size_t begin = kHead.size(); begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    auto name = text.substr(begin, end - begin);
    if (name.empty() || fs::path(name).filename() != name || name == "." || name == "..") {
      fail(ErrorKind::kBadFormat, "'{}' lists '{}', which is no name of a file: remove the folder", (path_ / kMarker).string(), name);
    }
    names_.insert(std::move(name));
    begin = end + 1;
  }
}

fs::path WorkFolder::file(const std::string& name) {
  if (path_.empty()) fail(ErrorKind::kInternal, "the work file '{}' has no folder", name);
  if (names_.contains(name)) return path_ / name;
  if (is_there(path_ / name)) {
    fail(ErrorKind::kUsage, "'{}' exists and was not made by Quiver: move it away", (path_ / name).string());
  }
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) fail(ErrorKind::kIo, "cannot create folder '{}': {}", path_.string(), error.message());
  names_.insert(name);
  write_marker();
  return path_ / name;
}

void WorkFolder::write_marker() const {
  std::string text(kHead);
  for (const auto& name : names_) text += name + "\n";
  write_file_atomic(path_ / kMarker, text);
}

void WorkFolder::remove() {
  if (!is_set() || !is_there(path_ / kMarker)) return;
  std::error_code ignored;
  names_.insert(kMarker);  // last of all: while anything else is left the folder stays known as Quiver's
  for (const auto& name : names_) {
    if (name != kMarker) fs::remove(path_ / name, ignored);
    for (const auto& entry : fs::directory_iterator(path_, ignored)) {
      if (is_leftover(entry.path(), name)) fs::remove(entry.path(), ignored);
    }
  }
  names_.clear();
  const auto entries = fs::directory_iterator(path_, ignored);
  if (std::distance(begin(entries), end(entries)) > 1) return write_marker();
  fs::remove(path_ / kMarker, ignored);
  fs::remove(path_, ignored);
}

}  // namespace quiver::io
