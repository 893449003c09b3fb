#include "quiver/io/wait_to_read.h"

#include <poll.h>
#include <sys/stat.h>

#include "quiver/base/error.h"
#include "quiver/base/progress.h"

namespace quiver::io {

void wait_to_read(int fd, std::string_view origin) {
  constexpr int kAskAgainMs = 100;
  struct stat info {};
  const bool may_wait = ::fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) || S_ISCHR(info.st_mode));
  if (!may_wait) return;
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  while (::poll(&waiting, 1, kAskAgainMs) <= 0) throw_if_stopped(format("while waiting for '{}'", origin));
}

}  // namespace quiver::io
