#include "quiver/sandbox/sandbox.h"

#include <cmath>

#include "quiver/base/error.h"
#include "quiver/sandbox/launch.h"

namespace quiver::sandbox {
namespace {

constexpr double kMaxSeconds = 1e6;

void check_seconds(const char* name, double value) {
  if (value > 0 && value <= kMaxSeconds) return;
  fail(ErrorKind::kUsage, "limits of a program: {} is {}; expected more than 0 and at most {}", name, value, kMaxSeconds);
}

void check_count(const char* name, std::int64_t value, std::int64_t least) {
  constexpr std::int64_t kMost = std::int64_t{1} << 50;
  if (value >= least && value <= kMost) return;
  fail(ErrorKind::kUsage, "limits of a program: {} is {}; expected {} to {}", name, value, least, kMost);
}

void check_limits(const Limits& limits) {
  check_seconds("wall_seconds", limits.wall_seconds);
  check_seconds("cpu_seconds", limits.cpu_seconds);
  check_count("memory_bytes", limits.memory_bytes, 1);
  check_count("processes", limits.processes, 1);
  check_count("file_bytes", limits.file_bytes, 4096);  // a page: of no bytes, a tmpfs has no limit
  check_count("output_bytes", limits.output_bytes, 0);
}

/// A program that tries to start more processes than it may. Root's are not counted by some kernels' rules, and they must be.
constexpr const char* kProbe = R"(import os, time
try:
    for _ in range(8):
        if os.fork() == 0:
            time.sleep(60)
    print("processes are not limited", flush=True)
except BlockingIOError:
    print("limited", flush=True)
os._exit(0)
)";

}  // namespace

Outcome run(const Interpreter& interpreter, const std::string& program, const Limits& limits, Isolation isolation, const StopToken& stop) {
  check_limits(limits);
  const Command command{.words = {interpreter.executable, "-s", "-B", "program.py"},
                        .environment = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1",
                                        "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"},
                        .program = program.empty() ? "\n" : program,
                        .folders = interpreter.folders};
  return launch(command, limits, isolation, stop);
}

std::optional<std::string> why_unavailable(const Interpreter& interpreter) {
  try {
    const auto outcome = run(interpreter, kProbe, {.processes = 4}, Isolation::kSandbox, StopToken());
    if (outcome.is_success() && outcome.output == "limited\n") return std::nullopt;
    return format("'{}' does not run in a sandbox: exit code {}, signal {}, and it says '{}'", interpreter.executable, outcome.exit_code,
                  outcome.signal, outcome.output);
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace quiver::sandbox
