// Python programs that a model wrote, run so that they can harm nothing (docs/mechanisms/sandbox.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quiver/base/progress.h"

namespace quiver::sandbox {

/// What keeps a program from the machine.
enum class Isolation {
  kSandbox,  ///< namespaces, a filter of system calls, limits
  kNone,     ///< limits alone: the program may read, write and send whatever the user may
};

struct Limits {
  double wall_seconds = 10;
  double cpu_seconds = 10;                              ///< of each process; counted in whole seconds, rounded up
  std::int64_t memory_bytes = std::int64_t{512} << 20;  ///< addresses of each process
  std::int64_t processes = 16;                          ///< with threads; in the sandbox alone
  std::int64_t file_bytes = std::int64_t{64} << 20;     ///< of the temporary folder; without a sandbox, of each file
  std::int64_t output_bytes = std::int64_t{1} << 20;
};

/// A Python that is installed on this machine.
struct Interpreter {
  std::string executable;            ///< absolute
  std::string version;               ///< "3.11.7"
  std::vector<std::string> folders;  ///< that hold its files; a program may read them
};

/// Asks the Python of this name or path where its files are. Throws kNotFound where there is none, and kIo where it does not
/// answer. Throws kUnsupported where one of its folders holds the user's home.
Interpreter find_interpreter(const std::string& command = "python3");

/// What ended a program.
enum class Ending {
  kExited,  ///< by itself, with an exit code
  kSignal,  ///< by a signal that the limits of time and output did not cause
  kTime,    ///< it reached a limit of time
  kOutput,  ///< it wrote more than Limits::output_bytes
};

struct Outcome {
  Ending ending = Ending::kExited;
  int exit_code = 0;  ///< of kExited
  int signal = 0;     ///< of the other endings; 0 if the program had ended by itself
  double seconds = 0;
  double cpu_seconds = 0;  ///< of the program and of those children that it waited for
  std::string output;      ///< of stdout and stderr together: the first Limits::output_bytes

  bool is_success() const { return ending == Ending::kExited && exit_code == 0; }
};

/// Runs a program: the text of a Python file. Its stdin is empty, its environment is fixed, its folder is temporary.
/// When this returns, no process, folder or mount of a sandbox is left. They go with Quiver, too, however it ends.
/// Without a sandbox, processes that left the program's process group stay.
///
/// Throws kUsage for limits out of their ranges, kUnsupported where the kernel allows no sandbox, kIo, and kInterrupted.
/// Thread-safe. Starts one thread, which lives as long as the program.
Outcome run(const Interpreter& interpreter, const std::string& program, const Limits& limits, Isolation isolation,
            const StopToken& stop = process_stop());

/// Tries a sandbox. Tells which call failed and how to mend it, or nothing where all is well. Takes as long as Python needs to start.
std::optional<std::string> why_unavailable(const Interpreter& interpreter);

}  // namespace quiver::sandbox
