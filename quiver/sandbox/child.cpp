#include "quiver/sandbox/child.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

#include "quiver/sandbox/plan.h"

namespace quiver::sandbox {
namespace {

// Of linux/mount.h, which older C libraries cannot include beside their sys/mount.h.
constexpr unsigned kCloneTree = 1;
constexpr unsigned kMoveFromDescriptor = 4;
constexpr std::uint64_t kReadOnly = 1, kNoSetuid = 2, kNoDevices = 4;
struct MountAttributes {
  std::uint64_t set = 0, clear = 0, propagation = 0, user_namespace = 0;
};

// Over which folder the new root is mounted first. Every machine has it, and nothing is read from the old root any more.
constexpr const char* kStage = "/usr";
constexpr const char* kStageOptions = "mode=755,size=1m,nr_inodes=1024";
constexpr const char* kHostName = "sandbox";
constexpr std::size_t kHostNameSize = 7;

/// Gives up if a call has failed.
void must(Plan& plan, long result, const char* call, const char* subject) {
  if (result >= 0) return;
  plan.failure = {.call = call, .subject = subject, .error = errno};
  ::_exit(1);
}

long set_attributes(int folder, const char* path, unsigned flags, std::uint64_t set) {
  MountAttributes attributes{.set = set};
  return ::syscall(SYS_mount_setattr, folder, path, flags, &attributes, sizeof attributes);
}

void wait_for_parent(Plan& plan) {
  ::close(plan.channels.go_end);
  char byte = 'r';
  must(plan, ::write(plan.channels.ready, &byte, 1), "write", "the pipe to the parent");
  if (::read(plan.channels.go, &byte, 1) != 1) ::_exit(1);  // the parent gave up, or is no more
}

/// From here on, the end of the parent ends this process. With process 1 the whole namespace ends.
void die_with_parent(Plan& plan) {
  must(plan, ::prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl", "PR_SET_PDEATHSIG");
  pollfd parent{.fd = plan.channels.parent, .events = POLLIN, .revents = 0};
  if (::poll(&parent, 1, 0) != 0) ::_exit(1);  // it had ended before
}

/// Copies mounts while the user still is the caller, who can reach the folders.
void copy_mounts(Plan& plan) {
  for (auto& shown : plan.shown) {
    shown.tree = static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, shown.source.c_str(), kCloneTree | O_CLOEXEC | AT_RECURSIVE));
    must(plan, shown.tree, "open_tree", shown.source.c_str());
    const std::uint64_t attributes = kReadOnly | kNoSetuid | (shown.is_device ? 0 : kNoDevices);
    must(plan, set_attributes(shown.tree, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes), "mount_setattr", shown.source.c_str());
  }
}

/// System calls for one thread: those of the C library would tell all threads of Quiver.
void change_id(Plan& plan) {
  if (!plan.changes_id) return;
  must(plan, ::syscall(SYS_setgroups, 0, nullptr), "setgroups", "no groups");
  must(plan, ::syscall(SYS_setresgid, kInsideId, kInsideId, kInsideId), "setresgid", "the group of the sandbox");
  must(plan, ::syscall(SYS_setresuid, kInsideId, kInsideId, kInsideId), "setresuid", "the user of the sandbox");
}

void make_root(Plan& plan) {
  must(plan, ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount", "private /");
  must(plan, ::mount("tmpfs", kStage, "tmpfs", MS_NOSUID | MS_NODEV, kStageOptions), "mount", "a tmpfs as root");
  must(plan, ::chdir(kStage), "chdir", "the new root");
  const char* scratch = plan.folder.c_str() + 1;
  must(plan, ::mkdir(scratch, 0755), "mkdir", scratch);
  must(plan, ::mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, plan.scratch_options.c_str()), "mount",
       "a tmpfs as temporary folder");  // first, because a Python may lie in a folder of this name
  for (const auto& folder : plan.folders) must(plan, ::mkdir(folder.c_str(), 0755), "mkdir", folder.c_str());
  for (const auto& link : plan.links) must(plan, ::symlink(link.target.c_str(), link.path.c_str()), "symlink", link.path.c_str());
  for (const auto& file : plan.files) {
    const int opened = ::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    must(plan, opened, "open", file.c_str());
    ::close(opened);
  }
  for (const auto& shown : plan.shown) {
    const long moved = ::syscall(SYS_move_mount, shown.tree, "", AT_FDCWD, shown.target.c_str(), kMoveFromDescriptor);
    must(plan, moved, "move_mount", shown.source.c_str());
  }
}

void enter_root(Plan& plan) {
  must(plan, ::syscall(SYS_pivot_root, ".", "."), "pivot_root", "the new root");  // the old one now lies over the new one
  must(plan, ::umount2(".", MNT_DETACH), "umount2", "the old root");
  must(plan, ::chdir("/"), "chdir", "/");
  must(plan, set_attributes(AT_FDCWD, "/", 0, kReadOnly), "mount_setattr", "/");
  must(plan, ::sethostname(kHostName, kHostNameSize), "sethostname", kHostName);
}

void write_program(Plan& plan) {
  must(plan, ::chdir(plan.folder.c_str()), "chdir", plan.folder.c_str());
  const int file = ::open("program.py", O_CREAT | O_WRONLY | O_CLOEXEC | O_TRUNC, 0600);
  must(plan, file, "open", "program.py");
  std::size_t done = 0;
  while (done < plan.program.size()) {
    const auto written = ::write(file, plan.program.data() + done, plan.program.size() - done);
    must(plan, written, "write", "program.py");
    done += static_cast<std::size_t>(written);
  }
  ::close(file);
}

void connect_streams(Plan& plan) {
  const int null = ::open("/dev/null", O_RDONLY);
  must(plan, null, "open", "/dev/null");
  must(plan, ::dup2(null, STDIN_FILENO), "dup2", "stdin");
  must(plan, ::dup2(plan.channels.output, STDOUT_FILENO), "dup2", "stdout");
  must(plan, ::dup2(plan.channels.output, STDERR_FILENO), "dup2", "stderr");
  must(plan, static_cast<int>(::syscall(SYS_close_range, 3U, ~0U, 0U)), "close_range", "all descriptors of the parent");
}

/// A disposition to ignore a signal would outlive exec, and so would a blocked signal.
void reset_signals(Plan& plan) {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &standard, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  must(plan, ::sigprocmask(SIG_SETMASK, &none, nullptr), "sigprocmask", "no signal");
}

void limit_itself(Plan& plan) {
  ::umask(022);
  for (const auto& limit : plan.limits) {
    must(plan, ::setrlimit(static_cast<decltype(RLIMIT_AS)>(limit.resource), &limit.value), "setrlimit", "a limit of the program");
  }
  must(plan, ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
  if (plan.filter.empty()) return;
  sock_fprog filter{.len = static_cast<unsigned short>(plan.filter.size()), .filter = plan.filter.data()};
  must(plan, ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp", "a filter of system calls");
}

}  // namespace

int become_program(void* argument) {
  Plan& plan = *static_cast<Plan*>(argument);
  wait_for_parent(plan);
  if (plan.isolation == Isolation::kSandbox) {
    copy_mounts(plan);
    change_id(plan);
  }
  die_with_parent(plan);  // a change of ids would undo it
  must(plan, ::setsid(), "setsid", "a session of its own");
  if (plan.isolation == Isolation::kSandbox) {
    make_root(plan);
    enter_root(plan);
  }
  if (!plan.program.empty()) write_program(plan);
  connect_streams(plan);
  reset_signals(plan);
  limit_itself(plan);
  // Capabilities end here: the user inside is not root, and there are no ambient ones.
  ::execve(plan.words.front().c_str(), plan.word_pointers.data(), plan.environment_pointers.data());
  must(plan, -1, "execve", plan.words.front().c_str());
  return 1;
}

}  // namespace quiver::sandbox
