// What the process of a program has to do before it becomes the program. All is prepared by its parent: see child.h.
#pragma once

#include <linux/filter.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "quiver/sandbox/sandbox.h"

namespace quiver::sandbox {

/// A command to run, and what it may see.
struct Command {
  std::vector<std::string> words;
  std::vector<std::string> environment;  ///< "NAME=value"
  std::string program;                   ///< becomes program.py in the temporary folder
  std::vector<std::string> folders;      ///< to read, beside those of the system
};

/// The call that failed before the program began.
struct Failure {
  const char* call = nullptr;     ///< none: nothing failed
  const char* subject = nullptr;  ///< what it was about
  int error = 0;                  ///< an errno
};

/// A file or folder of the machine that the sandbox shows.
struct Shown {
  std::string source;
  std::string target;  ///< relative to the new root
  bool is_device = false;
  int tree = -1;  ///< the child's: a copy of the mount
};

struct Link {
  std::string target;
  std::string path;  ///< relative to the new root
};

struct LimitOfKernel {
  int resource = 0;
  rlimit value = {};
};

/// Descriptors that both sides use. All are above 2 and closed by exec.
struct Channels {
  int ready = -1;   ///< a byte from the child: it exists
  int go = -1;      ///< a byte to the child: its ids are mapped
  int go_end = -1;  ///< the other end, which the child closes, so that it sees its parent's end
  int output = -1;  ///< stdout and stderr
  int parent = -1;  ///< becomes readable when Quiver's process ends
};

struct Plan {
  Isolation isolation = Isolation::kSandbox;
  Channels channels = {};
  std::vector<std::string> folders = {};  ///< of the new root beside the temporary one, parents first
  std::vector<std::string> files = {};    ///< of the new root, empty: places for mounts
  std::vector<Link> links = {};
  std::vector<Shown> shown = {};
  std::string scratch_options = {};  ///< of the tmpfs
  std::string folder = {};           ///< the temporary one
  std::string program = {};
  std::vector<LimitOfKernel> limits = {};
  std::vector<sock_filter> filter = {};
  bool changes_id = false;  ///< of the user and of the group, to kInsideId
  std::vector<std::string> words = {}, environment = {};
  std::vector<char*> word_pointers = {}, environment_pointers = {};
  Failure failure = {};  ///< written by the child
};

/// The user and the group inside of a sandbox.
inline constexpr unsigned kInsideId = 1000;
/// Whom they are outside if Quiver runs as root: nobody, whose processes RLIMIT_NPROC counts. It does not count root's.
inline constexpr unsigned kNobody = 65534;

/// Whether the ids outside are nobody's. Not for an ordinary user, nor where this user namespace has no such id.
bool maps_to_nobody();

/// Fills all but the channels. `folder` is the temporary one of a program without a sandbox.
void fill_plan(Plan& plan, const Command& command, const Limits& limits, Isolation isolation, const std::string& folder);

/// The filter of system calls. Forbidden ones return EPERM; those of another machine's numbering end the process.
std::vector<sock_filter> call_filter();

}  // namespace quiver::sandbox
