#include "quiver/sandbox/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/sandbox/child.h"

namespace quiver::sandbox {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kChildStackBytes = std::size_t{128} << 10;
constexpr std::size_t kReadBytes = std::size_t{64} << 10;
constexpr milliseconds kAskAgain{50};  // whether the user asked to stop
constexpr int kNamespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

[[noreturn]] void fail_call(std::string_view call, std::string_view subject) {
  fail(ErrorKind::kIo, "cannot start a program: {} of {} failed: {}", call, subject, std::strerror(errno));
}

struct Pipe {
  io::Descriptor read = io::Descriptor(), write = io::Descriptor();
};

Pipe make_pipe() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) fail_call("pipe2", "a pipe to the program");
  return {.read = io::Descriptor(ends[0]), .write = io::Descriptor(ends[1])};
}

/// The temporary folder of a program without a sandbox; in a sandbox there is none on the machine.
class HostFolder {
 public:
  explicit HostFolder(Isolation isolation) {
    if (isolation == Isolation::kSandbox) return;
    path_ = std::filesystem::temp_directory_path() / "quiver-program-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) fail_call("mkdtemp", path_);
  }
  ~HostFolder() {
    if (!path_.empty()) io::remove_tree(path_);
  }
  HostFolder(const HostFolder&) = delete;
  HostFolder& operator=(const HostFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Shared by the thread that watches and the thread that is the program's parent. Each field has one writer; a pipe or a join lies between.
struct Launch {
  Plan plan;
  Pipe ready, go, output;
  io::Descriptor self = io::Descriptor();  // this process
  std::unique_ptr<std::byte[]> stack;
  pid_t process = -1;
  int clone_error = 0;
  int wait_error = 0;
  int status = 0;
  rusage usage = {};
};

/// Whether this process may be inspected, as it was before any child changed its ids.
int dumpable_at_first() {
  static const int first = ::prctl(PR_GET_DUMPABLE);
  return first;
}

/// The body of the thread that is the program's parent. PR_SET_PDEATHSIG means a thread's death: this one waits for the program.
void be_parent(Launch& launch) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);  // no handler of ours runs in the child
  const bool is_sandbox = launch.plan.isolation == Isolation::kSandbox;
  const int flags = CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID | SIGCHLD | (is_sandbox ? kNamespaces : 0);
  const int process = ::clone(become_program, launch.stack.get() + kChildStackBytes, flags, &launch.plan, &launch.process);
  if (process < 0) launch.clone_error = errno;
  const char byte = 'e';  // the other thread waits for a byte of a child that may have died before it sent one
  [[maybe_unused]] const auto written = ::write(launch.ready.write.get(), &byte, 1);
  if (process < 0) return;
  // A change of ids marks the memory as private to root, and the child shared ours.
  if (launch.plan.changes_id) ::prctl(PR_SET_DUMPABLE, dumpable_at_first());
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(process), &info, WEXITED | WNOWAIT | __WALL) != 0 && errno == EINTR) {
  }
  if (!is_sandbox) ::kill(-process, SIGKILL);  // before the number is free for others
  if (::wait4(process, &launch.status, __WALL, &launch.usage) != process) launch.wait_error = errno;
}

/// Writes a file of /proc/PID, at once as the kernel wants it. Returns whether that worked.
bool write_of_process(pid_t process, const char* name, const std::string& text) {
  const auto path = format("/proc/{}/{}", process, name);
  const io::Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file.get() >= 0 && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

/// Gives the namespace its user and its group. Only the outside may do so for an id that is not the caller's.
void map_ids(Launch& launch) {
  const bool is_nobody = launch.plan.changes_id;
  const unsigned user = is_nobody ? kNobody : ::geteuid();
  const unsigned group = is_nobody ? kNobody : ::getegid();
  const auto put = [&](const char* name, const std::string& text) {
    if (launch.plan.failure.call != nullptr || write_of_process(launch.process, name, text)) return;
    launch.plan.failure = {.call = "write", .subject = name, .error = errno};
  };
  if (!is_nobody) put("setgroups", "deny");
  put("uid_map", format("{} {} 1", kInsideId, user));
  put("gid_map", format("{} {} 1", kInsideId, group));
}

std::size_t room_for(const Outcome& outcome, const Limits& limits) {
  return std::min(kReadBytes, static_cast<std::size_t>(limits.output_bytes) + 1 - outcome.output.size());
}

/// Reads what is there, up to one byte beyond the limit. Returns whether more may come.
bool read_some(int descriptor, const Limits& limits, Outcome& outcome) {
  const auto before = outcome.output.size();
  const auto room = room_for(outcome, limits);
  if (room == 0) return false;
  outcome.output.resize(before + room);
  const auto count = ::read(descriptor, outcome.output.data() + before, room);
  outcome.output.resize(before + static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  return count > 0 || (count < 0 && errno == EINTR);
}

/// Kills a process once, at its own end at the latest. Nothing happens to one that has ended.
class Killer {
 public:
  explicit Killer(int process) : process_(process) {}
  ~Killer() { kill(); }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;
  void kill() {
    if (is_done_) return;
    is_done_ = true;
    ::syscall(SYS_pidfd_send_signal, process_, SIGKILL, nullptr, 0);
  }
  bool is_done() const { return is_done_; }

 private:
  int process_;
  bool is_done_ = false;
};

/// Watches until the process has ended. Returns whether the user asked to stop.
bool watch(const Launch& launch, int process, const Limits& limits, const StopToken& stop, Outcome& outcome) {
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limits.wall_seconds));
  const int output = launch.output.read.get();
  ::fcntl(output, F_SETFL, O_NONBLOCK);
  Killer killer(process);
  bool is_stopped = false;
  pollfd watched[] = {{.fd = process, .events = POLLIN, .revents = 0}, {.fd = output, .events = POLLIN, .revents = 0}};
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    const auto pause = killer.is_done() ? kAskAgain : std::clamp(left, milliseconds(0), kAskAgain);
    const int num_ready = ::poll(watched, 2, static_cast<int>(pause.count()));
    if (num_ready > 0 && watched[1].revents != 0 && !read_some(output, limits, outcome)) watched[1].fd = -1;  // closed, or enough
    if (num_ready > 0 && watched[0].revents != 0) break;
    if (killer.is_done()) continue;
    is_stopped = stop.stop_requested();
    if (is_stopped) {
      killer.kill();
    } else if (std::ssize(outcome.output) > limits.output_bytes) {
      outcome.ending = Ending::kOutput;
      killer.kill();
    } else if (Clock::now() >= end) {
      outcome.ending = Ending::kTime;
      killer.kill();
    }
  }
  outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (watched[1].fd >= 0) {
    while (read_some(output, limits, outcome)) {
    }
  }
  return is_stopped;
}

double seconds_of(const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); }

/// What the end of the process means.
void conclude(const Launch& launch, const Limits& limits, Outcome& outcome) {
  outcome.cpu_seconds = seconds_of(launch.usage.ru_utime) + seconds_of(launch.usage.ru_stime);
  if (std::ssize(outcome.output) > limits.output_bytes) {
    outcome.ending = Ending::kOutput;
    outcome.output.resize(static_cast<std::size_t>(limits.output_bytes));
  }
  if (WIFSIGNALED(launch.status)) outcome.signal = WTERMSIG(launch.status);
  if (outcome.ending != Ending::kExited) return;
  outcome.exit_code = WIFEXITED(launch.status) ? WEXITSTATUS(launch.status) : 0;
  if (outcome.signal == 0) return;
  // The kernel's limit counts whole ticks, its report does not. Both differ by a few hundredths.
  const bool has_used_its_time = outcome.cpu_seconds >= 0.75 * limits.cpu_seconds;
  outcome.ending = outcome.signal == SIGKILL && has_used_its_time ? Ending::kTime : Ending::kSignal;
}

void check_failures(const Launch& launch) {
  const bool is_sandbox = launch.plan.isolation == Isolation::kSandbox;
  Failure failure = launch.plan.failure;
  if (launch.clone_error != 0) failure = {.call = "clone", .subject = "new namespaces", .error = launch.clone_error};
  if (failure.call != nullptr && is_sandbox) {
    fail(ErrorKind::kUnsupported, "cannot start a sandbox: {} of '{}' failed: {}; {}", failure.call, failure.subject,
         std::strerror(failure.error), how_to_mend(failure));
  }
  if (failure.call != nullptr) {
    fail(failure.error == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo, "cannot start a program: {} of '{}' failed: {}", failure.call,
         failure.subject, std::strerror(failure.error));
  }
  if (launch.wait_error != 0) {
    fail(ErrorKind::kIo, "cannot learn how a program ended: wait4 failed: {} (does this process ignore SIGCHLD?)",
         std::strerror(launch.wait_error));
  }
}

void open_channels(Launch& launch) {
  launch.ready = make_pipe();
  launch.go = make_pipe();
  launch.output = make_pipe();
  launch.self = io::Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (launch.self.get() < 0) fail_call("pidfd_open", "this process");
  launch.plan.channels = {.ready = launch.ready.write.get(),
                          .go = launch.go.read.get(),
                          .go_end = launch.go.write.get(),
                          .output = launch.output.write.get(),
                          .parent = launch.self.get()};
}

/// Lets the child go once it exists and its ids are mapped. Returns a descriptor of it; none: it is to end, or was not made.
io::Descriptor start(Launch& launch) {
  char byte = 'e';
  while (::read(launch.ready.read.get(), &byte, 1) < 0 && errno == EINTR) {
  }
  launch.output.write.close();  // the child has its own
  if (byte != 'r') {
    launch.plan.failure = {.call = "clone", .subject = "the program's process", .error = ECHILD};
    return io::Descriptor();
  }
  io::Descriptor process(static_cast<int>(::syscall(SYS_pidfd_open, launch.process, 0)));
  if (process.get() < 0) {
    launch.plan.failure = {.call = "pidfd_open", .subject = "the program's process", .error = errno};
    return process;
  }
  if (launch.plan.isolation == Isolation::kSandbox) map_ids(launch);
  if (launch.plan.failure.call != nullptr) return io::Descriptor();
  write_of_process(launch.process, "oom_score_adj", "1000");  // where memory ends, this program goes first, if the kernel may be told
  if (::write(launch.go.write.get(), &byte, 1) == 1) return process;
  launch.plan.failure = {.call = "write", .subject = "the pipe to the program", .error = errno};
  return io::Descriptor();
}

}  // namespace

Outcome launch(const Command& command, const Limits& limits, Isolation isolation, const StopToken& stop) {
  dumpable_at_first();
  io::occupy_closed_streams();
  const HostFolder folder(isolation);
  Launch launch;
  fill_plan(launch.plan, command, limits, isolation, folder.path());
  open_channels(launch);
  launch.stack = std::make_unique<std::byte[]>(kChildStackBytes);
  Outcome outcome;
  bool is_stopped = false;
  try {
    std::jthread parent(be_parent, std::ref(launch));
    const io::Descriptor process = start(launch);
    if (process.get() >= 0) is_stopped = watch(launch, process.get(), limits, stop, outcome);
    launch.go.write.close();  // a child that still waits ends
  } catch (const std::system_error& error) {
    fail(ErrorKind::kIo, "cannot start a program: a thread for it cannot be made: {}", error.what());
  }
  check_failures(launch);
  if (is_stopped) stop.throw_if_stopped("while a generated program ran");
  conclude(launch, limits, outcome);
  return outcome;
}

}  // namespace quiver::sandbox
