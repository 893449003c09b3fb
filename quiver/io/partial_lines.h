// Lines of a long run, kept as they are made, so that the run goes on after a kill.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "quiver/io/file.h"
#include "quiver/io/work_folder.h"

namespace quiver::io {

/// The lines of one output file, JSON each. The file appears with commit(), complete. Until then the lines lie in the folder PATH.parts
/// (WorkFolder), where the next run of the same key finds them. Not thread-safe.
class PartialLines {
 public:
  /// Throws kUsage if the folder PATH.parts exists and is not Quiver's.
  explicit PartialLines(std::filesystem::path path);
  /// Removes the folder if no line stands in it.
  ~PartialLines();
  PartialLines(const PartialLines&) = delete;
  PartialLines& operator=(const PartialLines&) = delete;

  struct Found {
    std::int64_t num_lines = 0;  ///< complete lines of the same key, which are kept
    bool is_of_another = false;  ///< there were lines of another key, which are gone
  };
  /// Call once, before append. `key` names all that the lines depend on. A last line without its end, and lines from the first one that
  /// is no JSON, are dropped. Throws kIo, also if another process holds the folder.
  Found take_up(const std::string& key);
  /// Appends whole lines; they are on the disk when this returns.
  void append(std::string_view lines);
  /// Publishes the file and removes the folder; call once, last.
  void commit();

  const std::filesystem::path& folder() const { return work_.path(); }

 private:
  std::filesystem::path path_;
  WorkFolder work_;
  std::optional<FileLock> lock_;
  std::optional<AppendWriter> writer_;
  bool has_lines_ = false;
};

}  // namespace quiver::io
