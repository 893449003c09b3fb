// Files: read-only maps, whole reads, and writes that either happen completely or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace quiver::io {

/// A file descriptor that closes itself; -1 is none. Move-only.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  int get() const { return fd_; }
  /// Returns what close(2) returns; 0 where nothing is open.
  int close();

 private:
  int fd_;
};

/// Opens /dev/null in place of each of stdin, stdout and stderr that is closed, so that no file or pipe gets its number and what is
/// printed does not end in it. Reading and writing these streams still fails with EBADF. Throws kIo. Thread-safe.
void occupy_closed_streams();

/// A file mapped read-only. `bytes()` stays valid until the object and its copies are destroyed, moves included.
/// Nobody may truncate the file in the meantime (the kernel answers with SIGBUS); files replaced by rename, as
/// AtomicFileWriter does, are safe.
class MappedFile {
 public:
  /// Throws kNotFound if there is no such file, kIo if it cannot be read or is not a regular file. An empty file
  /// gives empty bytes.
  explicit MappedFile(const std::filesystem::path& path);

  std::span<const std::byte> bytes() const { return bytes_; }
  /// Takes the pages that lie whole in `part` out of this process's memory. They are read from the file again where they are looked at
  /// again. Thread-safe.
  void release(std::span<const std::byte> part) const;

 private:
  std::shared_ptr<void> mapping_;
  std::span<const std::byte> bytes_;
};

/// read_text_file refuses a longer file. The largest text that is read at once, a tokenizer.json, has some 30 MB.
inline constexpr std::int64_t kMaxTextFileBytes = std::int64_t{1} << 30;

/// The whole content of a file (pipes and /proc included). Throws kNotFound, kIo, or kUnsupported beyond kMaxTextFileBytes.
std::string read_text_file(const std::filesystem::path& path);

/// The 64 hexadecimal digits of the SHA-256 of a file's content. Throws kNotFound or kIo.
std::string sha256_file(const std::filesystem::path& path);

/// A name beside `path`, in the same folder (so that a rename is atomic), that no other call returns:
/// ".<file name>.<process>-<random>.tmp". Nothing is created.
std::filesystem::path temp_sibling(const std::filesystem::path& path);

/// The folder that `path` is in, "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);
/// Waits until what was renamed in a folder is on the disk. Throws kIo.
void flush_folder(const std::filesystem::path& folder);

/// Whether a write to `path` goes to something that takes bytes as they come: a device, a pipe, a socket, or an open stream by name
/// (/dev/stdout, /dev/fd/2, /proc/self/fd/1). Such a thing is written to, never replaced by a file.
bool is_stream(const std::filesystem::path& path);

/// Writes a file under a temporary name; commit() flushes it to the disk and renames it over `path`. Until then, and
/// after any failure, what was at `path` before stays whole, and the destructor removes the temporary file.
/// The folder must exist. A symbolic link at `path` is followed: its target is replaced, the link stays. To a stream (is_stream) bytes go
/// at once.
class AtomicFileWriter {
 public:
  /// Throws kNotFound if the folder does not exist, kIo if the file cannot be created.
  explicit AtomicFileWriter(const std::filesystem::path& path);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  /// Appends. Throws kIo (disk full, quota, ...).
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Publishes the file; call once, last. Throws kIo, or kInternal when called twice.
  void commit();

 private:
  [[noreturn]] void fail_io(std::string_view action, int error);

  std::filesystem::path path_;
  std::filesystem::path temp_;  // none for a stream
  Descriptor fd_;
};

/// Appends to a file, which is made if need be. Its first `kept_bytes` stay; what lies behind them is cut off.
class AppendWriter {
 public:
  /// Throws kNotFound if the folder does not exist, kIo.
  AppendWriter(std::filesystem::path path, std::int64_t kept_bytes);

  /// The text is on the disk when this returns. Throws kIo; a part of the text may then stand at the end of the file.
  void write(std::string_view text);

 private:
  std::filesystem::path path_;
  Descriptor fd_;
};

/// AtomicFileWriter in one call.
void write_file_atomic(const std::filesystem::path& path, std::string_view text);
void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// An exclusive advisory lock on a file, which is created if need be and never removed. The kernel releases the lock
/// when the object or the process ends, however it ends.
class FileLock {
 public:
  /// Waits up to `wait_ms` for another holder to end; then throws kIo, naming the process that holds the lock.
  explicit FileLock(const std::filesystem::path& path, std::int64_t wait_ms = 0);

 private:
  Descriptor fd_;
};

}  // namespace quiver::io
