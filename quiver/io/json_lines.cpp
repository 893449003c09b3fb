#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/io/json_internal.h"
#include "quiver/io/wait_to_read.h"

namespace quiver::io {
namespace {

/// Fills a buffer with bytes and says how many; 0 at the end.
using Source = std::function<std::size_t(std::span<char>)>;

Source descriptor_source(int fd, std::string origin) {
  // The guard closes what we opened; standard input stays open.
  const std::shared_ptr<void> guard(nullptr, [fd](void*) {
    if (fd != STDIN_FILENO) ::close(fd);
  });
  return [fd, guard, origin = std::move(origin)](std::span<char> out) {
    while (true) {
      wait_to_read(fd, origin);
      const ssize_t count = ::read(fd, out.data(), out.size());
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR && errno != EAGAIN) {
        fail(ErrorKind::kIo, "cannot read '{}': {}", origin, std::generic_category().message(errno));
      }
    }
  };
}

Source memory_source(std::string bytes) {
  return [bytes = std::move(bytes), position = std::size_t{0}](std::span<char> out) mutable {
    const std::size_t count = std::min(out.size(), bytes.size() - position);
    std::memcpy(out.data(), bytes.data() + position, count);
    position += count;
    return count;
  };
}

/// Decompresses zstd frames, one after another.
class ZstdSource {
 public:
  ZstdSource(Source compressed, std::string origin)
      : compressed_(std::move(compressed)), origin_(std::move(origin)), context_(ZSTD_createDCtx(), &ZSTD_freeDCtx) {
    if (context_ == nullptr) fail(ErrorKind::kIo, "cannot read '{}': no memory for zstd", origin_);
    buffer_.resize(ZSTD_DStreamInSize());
  }

  std::size_t read(std::span<char> out) {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && !at_end_) refill();
      const std::size_t before = input_.pos;
      if (at_end_ && input_.pos == input_.size && !in_frame_) {
        if (num_frames_ == 0) fail(ErrorKind::kBadFormat, "'{}' is empty; expected a zstd stream", origin_);
        return 0;
      }
      const std::size_t left = ZSTD_decompressStream(context_.get(), &output, &input_);
      if (ZSTD_isError(left)) {
        fail(ErrorKind::kBadFormat, "'{}' is not a sound zstd stream: {} (perhaps a corrupt or renamed file?)", origin_,
             ZSTD_getErrorName(left));
      }
      if (at_end_ && left != 0 && input_.pos == before && output.pos == 0) fail_truncated();
      in_frame_ = left != 0;
      if (!in_frame_) ++num_frames_;
    }
    return output.pos;
  }

 private:
  void refill() {
    input_ = {buffer_.data(), compressed_(buffer_), 0};
    at_end_ = input_.size == 0;
  }

  [[noreturn]] void fail_truncated() const {
    fail(ErrorKind::kBadFormat, "'{}' ends in the middle of a zstd frame (perhaps an incomplete download or copy?)", origin_);
  }

  Source compressed_;
  std::string origin_;
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context_;
  std::vector<char> buffer_;
  ZSTD_inBuffer input_{nullptr, 0, 0};
  bool at_end_ = false;    ///< the compressed bytes are all in input_
  bool in_frame_ = false;  ///< a frame has begun and not ended
  std::int64_t num_frames_ = 0;
};

Source decompressed_if_named_so(Source source, const std::string& origin) {
  if (!origin.ends_with(".zst")) return source;
  const auto zstd = std::make_shared<ZstdSource>(std::move(source), origin);
  return [zstd](std::span<char> out) { return zstd->read(out); };
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

struct JsonLinesReader::State {
  State(Source from, std::string name) : source(std::move(from)), origin(std::move(name)), buffer(std::size_t{1} << 17) {}

  /// Puts the next line, without its newline, into `line`; false at the end. A last line without newline counts, an empty one not.
  bool read_line() {
    line.clear();
    while (true) {
      if (position == filled) {
        try {
          filled = source(buffer);
        } catch (const Error& error) {
          throw Error(error.kind(), format("{} after line {}", error.what(), line_count));
        }
        position = 0;
        if (filled == 0) break;
      }
      const std::string_view rest(buffer.data() + position, filled - position);
      const std::size_t newline = rest.find('\n');
      const std::size_t count = std::min(newline, rest.size());
      if (line.size() + count > static_cast<std::size_t>(kMaxLineBytes)) {
        fail(ErrorKind::kBadFormat, "{}: line {} has at least {} bytes; at most {} are read (expected one JSON document per line)", origin,
             line_count + 1, line.size() + count, kMaxLineBytes);
      }
      line.append(rest.substr(0, count));
      position += count;
      if (newline != std::string_view::npos) {
        ++position;
        ++line_count;
        return true;
      }
    }
    if (line.empty()) return false;
    ++line_count;
    return true;
  }

  Source source;
  std::string origin;
  std::vector<char> buffer;
  std::size_t position = 0;  ///< of buffer[0, filled), what read_line has not yet taken
  std::size_t filled = 0;
  std::int64_t line_count = 0;
  std::int64_t document_line = 0;
  std::string line;
};

JsonLinesReader::JsonLinesReader(std::unique_ptr<State> state) : state_(std::move(state)) {}

JsonLinesReader::JsonLinesReader(const std::filesystem::path& path) {
  if (path == "-") {
    state_ = std::make_unique<State>(descriptor_source(STDIN_FILENO, "standard input"), "standard input");
    return;
  }
  const std::string& origin = path.native();
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? ErrorKind::kNotFound : ErrorKind::kIo, "cannot open '{}': {}", origin,
         std::generic_category().message(error));
  }
  state_ = std::make_unique<State>(decompressed_if_named_so(descriptor_source(fd, origin), origin), origin);
}

JsonLinesReader JsonLinesReader::from_bytes(std::string bytes, std::string origin) {
  Source source = decompressed_if_named_so(memory_source(std::move(bytes)), origin);
  return JsonLinesReader(std::make_unique<State>(std::move(source), std::move(origin)));
}

JsonLinesReader::~JsonLinesReader() = default;
JsonLinesReader::JsonLinesReader(JsonLinesReader&&) noexcept = default;
JsonLinesReader& JsonLinesReader::operator=(JsonLinesReader&&) noexcept = default;

std::optional<nlohmann::json> JsonLinesReader::next() {
  while (state_->read_line()) {
    if (is_blank(state_->line)) continue;
    state_->document_line = state_->line_count;
    return parse_json_at(state_->line, where(), state_->line_count);
  }
  return std::nullopt;
}

std::int64_t JsonLinesReader::line_number() const { return state_->document_line; }

std::string JsonLinesReader::where() const { return format("{}:{}", state_->origin, state_->document_line); }

}  // namespace quiver::io
