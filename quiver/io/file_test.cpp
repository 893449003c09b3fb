#include "quiver/io/file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include "quiver/base/hash.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// No file of this process may grow beyond `bytes` while this lives; writes then fail with EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit limit{bytes, previous_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit previous_{};
  void (*previous_handler_)(int) = nullptr;
};

TEST(MappedFile, ShowsTheContentOfTheFile) {
  const TempFolder folder;
  write_file_atomic(folder / "a.bin", std::string_view("some bytes\0more", 15));
  const MappedFile file(folder / "a.bin");
  EXPECT_EQ(text_of(file.bytes()), std::string_view("some bytes\0more", 15));
}

TEST(MappedFile, OfAnEmptyFileIsEmpty) {
  const TempFolder folder;
  write_file_atomic(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(MappedFile, KeepsItsBytesWhenMoved) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "alpha");
  write_file_atomic(folder / "b", "beta");
  MappedFile a(folder / "a");
  const auto bytes = a.bytes();
  MappedFile b(folder / "b");
  b = std::move(a);
  EXPECT_EQ(b.bytes().data(), bytes.data());
  EXPECT_EQ(text_of(b.bytes()), "alpha");
}

TEST(MappedFile, SurvivesTheReplacementOfItsFile) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  const MappedFile file(folder / "a");
  write_file_atomic(folder / "a", "new content");
  EXPECT_EQ(text_of(file.bytes()), "old");
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { MappedFile(folder / "absent"); }), AllOf(StartsWith("not found: "), HasSubstr("absent': no such file")));
  EXPECT_THAT(error_of([&] { MappedFile(folder.path()); }), AllOf(StartsWith("input/output: "), HasSubstr("this is a folder")));
  EXPECT_THAT(error_of([&] { MappedFile("/dev/null"); }), AllOf(StartsWith("input/output: "), HasSubstr("pipe or a device")));
}

TEST(ReadTextFile, ReadsFilesWhoseSizeIsNotKnown) { EXPECT_THAT(read_text_file("/proc/self/status"), HasSubstr("Pid:")); }

TEST(ReadTextFile, RefusesWhatNoTextHas) {
  const TempFolder folder;
  std::ofstream(folder / "a") << "x";
  fs::resize_file(folder / "a", static_cast<std::uintmax_t>(kMaxTextFileBytes) + 1);  // a hole: takes no room
  EXPECT_THAT(error_of([&] { read_text_file(folder / "a"); }),
              AllOf(StartsWith("unsupported: "), HasSubstr("a' has 1073741825 bytes of text; at most 1073741824 are read")));
}

TEST(ReadTextFile, RefusesAFolder) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { read_text_file(folder.path()); }), AllOf(StartsWith("input/output: "), HasSubstr("cannot read")));
}

TEST(Sha256File, IsTheDigestOfTheContent) {
  const TempFolder folder;
  const std::string text(3'000'000, 'x');
  write_file_atomic(folder / "x", text);
  EXPECT_EQ(sha256_file(folder / "x"), sha256_hex(text));
}

TEST(TempSibling, IsNewEachTimeAndInTheSameFolder) {
  std::set<fs::path> names;
  for (int i = 0; i < 100; ++i) names.insert(temp_sibling("folder/file.json"));
  EXPECT_EQ(names.size(), 100);
  EXPECT_EQ(names.begin()->parent_path(), "folder");
  EXPECT_THAT(names.begin()->filename().native(), StartsWith(".file.json."));
  EXPECT_EQ(temp_sibling("file").parent_path(), ".");
  EXPECT_LE(temp_sibling(std::string(255, 'n')).filename().native().size(), 255);
}

TEST(WriteFileAtomic, ReplacesTheFileAndLeavesNothingElse) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "one");
  write_file_atomic(folder / "a", "two");
  EXPECT_EQ(read_text_file(folder / "a"), "two");
  EXPECT_EQ(folder.num_files(), 1);
}

TEST(WriteFileAtomic, WritesThroughASymbolicLink) {
  const TempFolder folder;
  write_file_atomic(folder / "target", "one");
  fs::create_symlink("target", folder / "link");
  write_file_atomic(folder / "link", "two");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_text_file(folder / "target"), "two");
}

TEST(WriteFileAtomic, NamesAFolderThatDoesNotExist) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { write_file_atomic(folder / "absent/a", "text"); }),
              AllOf(StartsWith("not found: "), HasSubstr("there is no folder"), HasSubstr("create it first")));
  EXPECT_THAT(error_of([&] { write_file_atomic(folder.path(), "text"); }),
              AllOf(StartsWith("input/output: "), HasSubstr("this is a folder")));
}

TEST(AtomicFileWriter, PublishesNothingBeforeCommit) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  {
    AtomicFileWriter writer(folder / "a");
    writer.write("new");
    EXPECT_EQ(read_text_file(folder / "a"), "old");
    EXPECT_EQ(folder.num_files(), 2);
  }
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_EQ(folder.num_files(), 1);
}

TEST(AtomicFileWriter, JoinsWhatIsWrittenInParts) {
  const TempFolder folder;
  AtomicFileWriter writer(folder / "a");
  writer.write("one ");
  writer.write(std::as_bytes(std::span(std::string_view("two"))));
  writer.commit();
  EXPECT_EQ(read_text_file(folder / "a"), "one two");
  EXPECT_THAT(error_of([&] { writer.commit(); }), StartsWith("internal: "));
  EXPECT_THAT(error_of([&] { writer.write("x"); }), StartsWith("internal: "));
}

TEST(AtomicFileWriter, KeepsTheOldFileWhenTheDiskRefuses) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = error_of([&] { write_file_atomic(folder / "a", std::string(5000, 'x')); });
  }
  EXPECT_THAT(message, AllOf(StartsWith("input/output: cannot write '"), HasSubstr("File too large (a file size limit applies"),
                             HasSubstr("what was there before is unchanged")));
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_EQ(folder.num_files(), 1);
}

TEST(FileLock, RefusesASecondHolderAndNamesTheFirst) {
  const TempFolder folder;
  const FileLock lock(folder / "lock");
  EXPECT_THAT(error_of([&] { FileLock(folder / "lock"); }),
              AllOf(StartsWith("input/output: "), HasSubstr(format("is locked by process {}: ", std::int64_t{::getpid()}))));
}

TEST(FileLock, WaitsForItsHolderIfToldTo) {
  const TempFolder folder;
  std::optional<FileLock> first(folder / "lock");
  std::thread holder([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    first.reset();
  });
  EXPECT_EQ(error_of([&] { FileLock(folder / "lock", /*wait_ms=*/60'000); }), "no error");
  holder.join();
}

TEST(FileLock, IsFreeAgainAfterItsHolder) {
  const TempFolder folder;
  { const FileLock lock(folder / "lock"); }
  FileLock first(folder / "lock");
  const FileLock moved = std::move(first);
  EXPECT_THAT(error_of([&] { FileLock(folder / "lock"); }), HasSubstr("is locked"));
}

TEST(FileLock, IsFreeAgainWhenItsHolderTakesAnother) {
  const TempFolder folder;
  FileLock lock(folder / "a");
  FileLock other(folder / "b");
  lock = std::move(other);
  EXPECT_EQ(error_of([&] { FileLock(folder / "a"); }), "no error");
  EXPECT_THAT(error_of([&] { FileLock(folder / "b"); }), HasSubstr("is locked"));
}

TEST(FileLock, IsFreeAgainAfterItsHolderIsKilled) {
  const TempFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FileLock lock(folder / "lock");
    [[maybe_unused]] const ssize_t sent = ::write(ready[1], "x", 1);
    ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(error_of([&] { FileLock(folder / "lock"); }), HasSubstr(format("process {}", std::int64_t{child})));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(error_of([&] { FileLock(folder / "lock"); }), "no error");
}

TEST(ClosedStreams, AreNotTakenByFiles) {
  const TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(0);
    ::close(2);
    occupy_closed_streams();
    occupy_closed_streams();
    const int file = ::open((folder / "a").c_str(), O_CREAT | O_WRONLY, 0600);
    char byte = 0;
    const bool is_refused = ::read(0, &byte, 1) == -1 && errno == EBADF && ::write(2, "x", 1) == -1 && errno == EBADF;
    ::_exit(file > 2 && is_refused ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(AtomicFileWriter, WritesToStreamsAndReplacesThemNever) {
  const TempFolder temp;
  const auto fifo = temp / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const int reader = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK);
  write_file_atomic(fifo, std::string_view("through"));
  char buffer[16] = {};
  EXPECT_EQ(::read(reader, buffer, sizeof buffer), 7);
  EXPECT_STREQ(buffer, "through");
  const int file = ::open((temp / "file").c_str(), O_WRONLY | O_CREAT, 0600);
  write_file_atomic(format("/dev/fd/{}", file), std::string_view("by number"));
  ::close(file);
  EXPECT_EQ(read_text_file(temp / "file"), "by number");
  EXPECT_TRUE(fs::is_fifo(fifo));
  EXPECT_EQ(temp.num_files(), 2);
  ::close(reader);
  EXPECT_FALSE(is_stream(temp / "file"));
  EXPECT_TRUE(is_stream("/dev/null"));
  EXPECT_TRUE(is_stream("/dev/stdout"));
}

TEST(AtomicFileWriter, RefusesANameThatEndsInASlash) {
  const TempFolder temp;
  EXPECT_THAT(error_of([&] { write_file_atomic(fs::path(temp / "new/"), std::string_view("x")); }), HasSubstr("names a folder"));
  EXPECT_EQ(temp.num_files(), 0);
}

}  // namespace
}  // namespace quiver::io
