// Reading what may come later: pipes, sockets, terminals.
#pragma once

#include <string_view>

namespace quiver::io {

/// Returns when a read of `fd` would not wait: at once for a file. Throws kInterrupted, naming `origin`, where the program is asked to stop
/// meanwhile; a read that waits would go on waiting. Open paths with O_NONBLOCK, since else opening a named pipe waits for its writer.
void wait_to_read(int fd, std::string_view origin);

}  // namespace quiver::io
