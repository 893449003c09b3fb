// Result lines of a long run, told as they are made.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "quiver/base/progress.h"
#include "quiver/io/partial_lines.h"

namespace quiver::cli {

/// Where the lines of a verb go. Standard output and streams get them at once. A file gets them when all are there; until then they lie
/// beside it (io::PartialLines), and the next run of the same key goes on behind them.
class LineOutput {
 public:
  /// Throws as check_output and io::PartialLines, before the work.
  LineOutput(std::string path, bool force);

  /// The number of lines that an earlier run has made. `key` is asked for where there may be some. Call once, before write.
  std::int64_t take_up(const std::function<std::string()>& key, Progress& progress);
  /// Whole lines.
  void write(const std::string& lines);
  /// Has `make` write the lines from `done` on, and commits them. Where it is stopped, throws kInterrupted, saying where the first `done`
  /// of `total` lines are and how to go on.
  void complete(const std::size_t& done, std::int64_t total, std::string_view what, const std::function<void()>& make);

 private:
  std::string path_;
  std::optional<io::PartialLines> partial_;     // of a file
  std::optional<io::AtomicFileWriter> stream_;  // of a stream by name
};

}  // namespace quiver::cli
