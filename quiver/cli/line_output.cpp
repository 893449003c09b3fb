#include "quiver/cli/line_output.h"

#include <utility>

#include "quiver/base/error.h"
#include "quiver/cli/command.h"

namespace quiver::cli {

LineOutput::LineOutput(std::string path, bool force) : path_(std::move(path)) {
  check_output(path_, OutputForm::kLines, force);
  if (is_file(path_)) partial_.emplace(path_);
}

std::int64_t LineOutput::take_up(const std::function<std::string()>& key, Progress& progress) {
  if (!partial_) {
    if (!path_.empty() && path_ != "-") stream_.emplace(path_);
    return 0;
  }
  const auto found = partial_->take_up(key());
  if (found.is_of_another)
    progress.message(format("'{}' held lines of other input, options, adapters or base; they are dropped", partial_->folder().string()));
  if (found.num_lines > 0) progress.message(format("{} lines were made before; they are kept", found.num_lines));
  return found.num_lines;
}

void LineOutput::write(const std::string& lines) {
  if (partial_)
    partial_->append(lines);
  else if (stream_)
    stream_->write(lines);
  else
    print_text(lines);
}

void LineOutput::complete(const std::size_t& done, std::int64_t total, std::string_view what, const std::function<void()>& make) {
  try {
    make();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInterrupted) throw;
    const auto place = partial_ ? format("kept in '{}', and the same command goes on there", partial_->folder().string())
                                : std::string("printed, and the same command starts from the first");
    fail(ErrorKind::kInterrupted, "stopped after {} of {} {}; their lines are {}", done, total, what, place);
  }
  if (partial_) partial_->commit();
  if (stream_) stream_->commit();
}

}  // namespace quiver::cli
