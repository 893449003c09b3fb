#include "quiver/io/wait_to_read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "quiver/base/progress.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

/// Asks the program to stop a moment later.
class StopSoon {
 public:
  StopSoon()
      : thread_([] {
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          request_stop();
        }) {}
  ~StopSoon() {
    thread_.join();
    clear_stop();
  }
  StopSoon(const StopSoon&) = delete;
  StopSoon& operator=(const StopSoon&) = delete;

 private:
  std::thread thread_;
};

TEST(WaitToRead, AFileAtOnceEvenWhereAStopIsAskedFor) {
  const TempFolder folder;
  std::ofstream(folder / "a") << "x";
  request_stop();
  EXPECT_EQ(read_text_file(folder / "a"), "x");
  clear_stop();
}

TEST(WaitToRead, EndsWhereAStopIsAskedFor) {
  const TempFolder folder;
  const auto fifo = folder / "pipe";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  {
    const StopSoon soon;
    EXPECT_ERROR(read_text_file(fifo), ErrorKind::kInterrupted, "stopped while waiting for '" + fifo.string() + "'");
  }
  const StopSoon soon;
  EXPECT_ERROR(JsonLinesReader(fifo).next(), ErrorKind::kInterrupted, "stopped while waiting for '" + fifo.string() + "'");
}

TEST(WaitToRead, APipeIsReadToItsEnd) {
  const TempFolder folder;
  const auto fifo = folder / "pipe";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  std::thread writer([&] {
    std::ofstream out(fifo);
    out << "first " << std::flush;
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    out << "second";
  });
  EXPECT_EQ(read_text_file(fifo), "first second");
  writer.join();
}

TEST(WaitToRead, AMapOfAPipeIsRefusedWithoutWaiting) {
  const TempFolder folder;
  const auto fifo = folder / "pipe";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_ERROR(MappedFile{fifo}, ErrorKind::kIo, "it is a pipe or a device; copy it to a file first");
}

}  // namespace
}  // namespace quiver::io
