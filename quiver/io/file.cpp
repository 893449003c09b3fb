#include "quiver/io/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"
#include "quiver/io/system_error.h"
#include "quiver/io/wait_to_read.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

/// What a person can do about an errno; empty if nothing better than its text is known.
std::string_view hint_for(int error) {
  switch (error) {
    case ENOSPC: return " (free some space on that disk, then run again)";
    case EDQUOT: return " (your disk quota is used up: free some space, then run again)";
    case EFBIG: return " (a file size limit applies: see ulimit -f)";
    case EROFS: return " (the file system is read-only: choose another folder)";
    case EACCES:
    case EPERM: return " (check the permissions of the file and its folder)";
    case EMFILE:
    case ENFILE: return " (too many files are open: see ulimit -n)";
    case ENAMETOOLONG: return " (choose a shorter name)";
    case EISDIR: return " (a file was expected, this is a folder)";
    default: return "";
  }
}

}  // namespace

void fail_errno(std::string_view action, const fs::path& path, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    fail(ErrorKind::kNotFound, "cannot {} '{}': no such file or folder (is the path spelled right?)", action, path.native());
  }
  fail(ErrorKind::kIo, "cannot {} '{}': {}{}", action, path.native(), std::generic_category().message(error), hint_for(error));
}

namespace {

Descriptor open_to_read(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail_errno("open", path, errno);
  return Descriptor(fd);
}

/// Bytes read, 0 at the end.
std::size_t read_some(int fd, char* out, std::size_t size, const fs::path& path) {
  while (true) {
    wait_to_read(fd, path.native());
    const ssize_t count = ::read(fd, out, size);
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno != EINTR && errno != EAGAIN) fail_errno("read", path, errno);
  }
}

/// The file that a write to `path` ends in: symbolic links are followed, so that they survive the rename.
fs::path follow_links(const fs::path& path) {
  std::error_code error;
  if (!fs::is_symlink(path, error)) return path;
  const fs::path target = fs::weakly_canonical(path, error);
  return error ? path : target;
}

/// The descriptor that a path names, none for other paths.
std::optional<int> descriptor_of(const fs::path& path) {
  if (path == "/dev/stdout") return 1;
  if (path == "/dev/stderr") return 2;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    const std::string_view name(path.native());
    if (!name.starts_with(folder)) continue;
    int fd = -1;
    const auto [end, error] = std::from_chars(name.data() + folder.size(), name.data() + name.size(), fd);
    if (error == std::errc() && end == name.data() + name.size()) return fd;
  }
  return std::nullopt;
}

int open_stream(const fs::path& path) {
  const auto named = descriptor_of(path);
  const int fd = named ? ::fcntl(*named, F_DUPFD_CLOEXEC, 0) : ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail_errno("write", path, errno);
  return fd;
}

/// Writes all of the bytes. Returns 0 or the errno.
int write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return 0;
}

}  // namespace

void occupy_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    const int fd = ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (fd < 0) fail_errno("open", "/dev/null", errno);
    if (fd > STDERR_FILENO) ::close(fd);  // another thread was faster
  }
}

int Descriptor::close() { return fd_ < 0 ? 0 : ::close(std::exchange(fd_, -1)); }

fs::path folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

// The rename itself must reach the disk, or a power cut could undo it after we reported success.
void flush_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail_errno("open folder", folder, errno);
  // EINVAL: this file system has no such notion (some network and FUSE mounts); there is nothing to wait for.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) fail_errno("flush folder", folder, errno);
}

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor fd = open_to_read(path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) fail_errno("examine", path, errno);
  if (S_ISDIR(info.st_mode)) fail_errno("map", path, EISDIR);
  if (!S_ISREG(info.st_mode)) {
    fail(ErrorKind::kIo, "cannot map '{}': it is a pipe or a device; copy it to a file first", path.native());
  }
  if (info.st_size == 0) return;  // mmap refuses zero bytes
  const auto size = static_cast<std::size_t>(info.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (start == MAP_FAILED) fail_errno("map", path, errno);
  mapping_ = std::shared_ptr<void>(start, [size](void* mapped) { ::munmap(mapped, size); });
  bytes_ = {static_cast<const std::byte*>(start), size};
}

void MappedFile::release(std::span<const std::byte> part) const {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(part.data()) + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text_file(const fs::path& path) {
  const Descriptor fd = open_to_read(path);
  std::string text;
  const auto check_size = [&path](std::int64_t size, const char* bound) {
    if (size <= kMaxTextFileBytes) return;
    fail(ErrorKind::kUnsupported, "'{}' has {}{} bytes of text; at most {} are read", path.string(), bound, size, kMaxTextFileBytes);
  };
  struct stat info {};
  if (::fstat(fd.get(), &info) == 0 && info.st_size > 0) {
    check_size(info.st_size, "");
    text.reserve(static_cast<std::size_t>(info.st_size) + 1);
  }
  std::vector<char> chunk(kChunkBytes);
  while (const std::size_t count = read_some(fd.get(), chunk.data(), chunk.size(), path)) {
    check_size(static_cast<std::int64_t>(text.size() + count), "at least ");
    text.append(chunk.data(), count);
  }
  return text;
}

std::string sha256_file(const fs::path& path) {
  const Descriptor fd = open_to_read(path);
  Sha256 digest;
  std::vector<char> chunk(kChunkBytes);
  while (const std::size_t count = read_some(fd.get(), chunk.data(), chunk.size(), path)) {
    digest.update(std::string_view(chunk.data(), count));
  }
  return digest.hex();
}

fs::path temp_sibling(const fs::path& path) {
  static std::atomic<std::uint64_t> counter{std::random_device{}()};  // random: process numbers repeat
  constexpr std::size_t kLongestStem = 200;                           // of 255 that a name may have
  const std::string stem = path.filename().native().substr(0, kLongestStem);
  return folder_of(path) / format(".{}.{}-{:x}.tmp", stem, static_cast<std::int64_t>(::getpid()), counter.fetch_add(1));
}

bool is_stream(const fs::path& path) {
  if (descriptor_of(path)) return true;
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

AtomicFileWriter::AtomicFileWriter(const fs::path& path) : path_(is_stream(path) ? path : follow_links(path)) {
  if (is_stream(path_)) {
    fd_ = Descriptor(open_stream(path_));
    return;
  }
  if (!path_.has_filename()) fail(ErrorKind::kUsage, "cannot write '{}': it names a folder, a file was expected", path_.native());
  temp_ = temp_sibling(path_);
  std::error_code error;
  if (fs::is_directory(path_, error)) fail_errno("write", path_, EISDIR);
  fd_ = Descriptor(::open(temp_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (fd_.get() < 0) {
    const int cause = errno;
    if (cause == ENOENT || cause == ENOTDIR) {
      fail(ErrorKind::kNotFound, "cannot write '{}': there is no folder '{}' (create it first)", path_.native(), folder_of(path_).native());
    }
    fail_errno("write", path_, cause);
  }
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_.get() >= 0 && !temp_.empty()) ::unlink(temp_.c_str());
}

void AtomicFileWriter::fail_io(std::string_view action, int error) {
  fd_.close();
  if (!temp_.empty()) ::unlink(temp_.c_str());
  fail(ErrorKind::kIo, "cannot {} '{}': {}{}{}", action, path_.native(), std::generic_category().message(error), hint_for(error),
       temp_.empty() ? "" : "; what was there before is unchanged");
}

void AtomicFileWriter::write(std::span<const std::byte> bytes) {
  if (fd_.get() < 0) fail(ErrorKind::kInternal, "'{}' is written after it was committed or failed", path_.native());
  if (const int error = write_all(fd_.get(), bytes); error != 0) fail_io("write", error);
}

void AtomicFileWriter::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFileWriter::commit() {
  if (fd_.get() < 0) fail(ErrorKind::kInternal, "'{}' is committed twice", path_.native());
  if (!temp_.empty() && ::fsync(fd_.get()) != 0) fail_io("flush", errno);
  // Network file systems report a full disk here.
  if (fd_.close() != 0) fail_io("close", errno);
  if (temp_.empty()) return;
  if (::rename(temp_.c_str(), path_.c_str()) != 0) fail_io("rename into place", errno);
  flush_folder(folder_of(path_));
}

AppendWriter::AppendWriter(fs::path path, std::int64_t kept_bytes) : path_(std::move(path)) {
  fd_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (fd_.get() < 0) fail_errno("write", path_, errno);
  if (::ftruncate(fd_.get(), kept_bytes) != 0) fail_errno("shorten", path_, errno);
}

void AppendWriter::write(std::string_view text) {
  if (const int error = write_all(fd_.get(), std::as_bytes(std::span(text))); error != 0) fail_errno("write", path_, error);
  if (::fdatasync(fd_.get()) != 0) fail_errno("flush", path_, errno);
}

void write_file_atomic(const fs::path& path, std::span<const std::byte> bytes) {
  AtomicFileWriter writer(path);
  writer.write(bytes);
  writer.commit();
}

void write_file_atomic(const fs::path& path, std::string_view text) { write_file_atomic(path, std::as_bytes(std::span(text))); }

FileLock::FileLock(const fs::path& path, std::int64_t wait_ms) : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (fd_.get() < 0) fail_errno("open lock file", path, errno);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
  int status = 0;
  while ((status = ::flock(fd_.get(), LOCK_EX | LOCK_NB)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (status != 0) {
    if (errno != EWOULDBLOCK) fail_errno("lock", path, errno);
    char holder[32] = {};
    const ssize_t count = ::pread(fd_.get(), holder, sizeof(holder) - 1, 0);
    std::string_view process(holder, count > 0 ? static_cast<std::size_t>(count) : 0);
    process = process.substr(0, process.find_first_not_of("0123456789"));
    fail(ErrorKind::kIo, "'{}' is locked by {}{}: another run is using this folder; wait for it to end, or stop it", path.native(),
         process.empty() ? "another process" : "process ", process);
  }
  // For the message above, in the process that comes second. The lock holds without it, so a full disk is no error.
  const std::string self = format("{}\n", static_cast<std::int64_t>(::getpid()));
  if (::ftruncate(fd_.get(), 0) == 0) {
    [[maybe_unused]] const ssize_t count = ::pwrite(fd_.get(), self.data(), self.size(), 0);
  }
}

}  // namespace quiver::io
