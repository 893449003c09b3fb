#include "quiver/io/partial_lines.h"

#include <tuple>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKeyFile = "key";
constexpr const char* kLinesFile = "lines.jsonl";
constexpr const char* kLockFile = "lock";

std::string text_if_there(const fs::path& path) { return fs::exists(path) ? read_text_file(path) : std::string(); }

bool is_json(std::string_view line) {
  try {
    parse_json(line, "");
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// The complete lines at the beginning of a text, and their bytes.
std::pair<std::int64_t, std::int64_t> complete_lines(std::string_view text) {
  std::int64_t count = 0;
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string_view::npos && is_json(text.substr(begin, end - begin));
       end = text.find('\n', begin)) {
    begin = end + 1;
    ++count;
  }
  return {count, static_cast<std::int64_t>(begin)};
}

}  // namespace

PartialLines::PartialLines(fs::path path) : path_(std::move(path)), work_(beside(path_, ".parts")) {}

PartialLines::~PartialLines() {
  if (!writer_ || has_lines_) return;
  try {
    work_.remove();
  } catch (const Error&) {  // NOLINT(bugprone-empty-catch): a destructor cannot tell; an empty folder of ours is left
  }
}

PartialLines::Found PartialLines::take_up(const std::string& key) {
  work_ = WorkFolder(work_.path());  // as it is now: another run may have made it since
  lock_.emplace(work_.file(kLockFile));
  const auto key_file = work_.file(kKeyFile), lines_file = work_.file(kLinesFile);
  const auto text = text_if_there(lines_file);
  Found found;
  std::int64_t kept_bytes = 0;
  if (text_if_there(key_file) == key) {
    std::tie(found.num_lines, kept_bytes) = complete_lines(text);
  } else {
    found.is_of_another = !text.empty();
  }
  has_lines_ = found.num_lines > 0;
  writer_.emplace(lines_file, kept_bytes);  // lines of another key are gone before the key is this one
  write_file_atomic(key_file, key);
  return found;
}

void PartialLines::append(std::string_view lines) {
  if (!writer_) fail(ErrorKind::kInternal, "lines of '{}' are written before take_up", path_.string());
  has_lines_ = true;
  writer_->write(lines);
}

void PartialLines::commit() {
  {
    const MappedFile lines(work_.file(kLinesFile));
    write_file_atomic(path_, lines.bytes());
  }
  work_.remove();
  has_lines_ = false;
  writer_.reset();
}

}  // namespace quiver::io
