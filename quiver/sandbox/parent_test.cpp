// Sandboxes of other callers: one that is killed, an ordinary user, a kernel that refuses.
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <thread>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"
#include "quiver/sandbox/test_support.h"

namespace quiver::sandbox {
namespace {

using ::testing::HasSubstr;

using SandboxParent = Sandbox;

/// What `action` returns in a process of its own.
std::string in_child(const std::function<std::string()>& action) {
  int ends[2];
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    std::string text;
    try {
      text = action();
    } catch (const std::exception& error) {
      text = std::string("thrown: ") + error.what();
    }
    [[maybe_unused]] const auto written = ::write(ends[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text(65536, '\0');
  std::size_t size = 0;
  for (ssize_t count = 0; (count = ::read(ends[0], text.data() + size, text.size() - size)) > 0;) size += static_cast<std::size_t>(count);
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return text.substr(0, size);
}

void write_text(const char* path, const std::string& text) { std::ofstream(path) << text << std::flush; }

TEST_F(SandboxParent, AKilledParentTakesItsProgramsAlong) {
  const auto mark = new_mark();
  const pid_t parent = ::fork();
  if (parent == 0) {
    run(python(), take_mark(mark) + "import os, time\nos.fork()\nos.fork()\ntime.sleep(60)\n", {.wall_seconds = 60}, Isolation::kSandbox);
    ::_exit(0);
  }
  EXPECT_TRUE(comes_true([&] { return num_marked(mark) == 4; }));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_TRUE(comes_true([&] { return num_marked(mark) == 0; }));
}

TEST_F(SandboxParent, AProgramCannotStayAfterItsParent) {
  const auto mark = new_mark();
  const pid_t parent = ::fork();
  if (parent == 0) {
    run(python(), "import ctypes\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n" + take_mark(mark) + "import time\ntime.sleep(60)\n",
        {.wall_seconds = 60}, Isolation::kSandbox);
    ::_exit(0);
  }
  EXPECT_TRUE(comes_true([&] { return num_marked(mark) == 1; }));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_TRUE(comes_true([&] { return num_marked(mark) == 0; }));
}

TEST_F(SandboxParent, QuiverCanBeInspectedAsBefore) {
  outcome_of("print(1)\n");
  EXPECT_EQ(::prctl(PR_GET_DUMPABLE), 1);
}

TEST_F(SandboxParent, AnOrdinaryUserHasASandboxToo) {
  const auto output = in_child([] {
    if (::geteuid() == 0) {
      if (::setgid(12345) != 0 || ::setuid(12345) != 0) return std::string("no other user");
      ::prctl(PR_SET_DUMPABLE, 1);  // as a program has it that this user started
      ::setenv("HOME", "/", 1);
    }
    const Interpreter system{.executable = "/usr/bin/python3"};
    const auto& interpreter = ::access(system.executable.c_str(), X_OK) == 0 ? system : python();
    const auto fault = why_unavailable(interpreter);
    if (fault) return *fault;
    return run(interpreter, "import os\nprint(os.getuid(), os.getppid(), os.listdir('.'))\n", {}, Isolation::kSandbox).output;
  });
  EXPECT_EQ(output, "1000 0 ['program.py']\n");
}

TEST_F(SandboxParent, AProcessWithoutStreamsMayRunPrograms) {
  const auto output = in_child([] {
    for (int fd = 0; fd < 3; ++fd) ::close(fd);
    const std::jthread printer([](const std::stop_token& end) {  // its text must not come into our pipes
      while (!end.stop_requested()) {
        [[maybe_unused]] const auto written = ::write(1, "e", 1);
      }
    });
    std::string outputs;
    for (int i = 0; i < 5; ++i) outputs += output_of("import sys\nprint(repr(sys.stdin.read()))\n");
    return outputs;
  });
  EXPECT_EQ(output, "''\n''\n''\n''\n''\n");
}

TEST_F(SandboxParent, GroupsOfRootAreNotInherited) {
  const auto output = in_child([] {
    const gid_t group = 4242;
    if (::geteuid() == 0 && ::setgroups(1, &group) != 0) return std::string("no group");
    return output_of("import os\nprint(os.getgroups())\n");
  });
  const bool may_have_some = ::geteuid() != 0 && ::getgroups(0, nullptr) != 0;  // an ordinary user cannot give them up
  EXPECT_TRUE(may_have_some || output == "[]\n") << output;
}

TEST_F(SandboxParent, IgnoredAndBlockedSignalsAreNotInherited) {
  const auto output = in_child([] {
    ::signal(SIGUSR1, SIG_IGN);
    sigset_t one;
    ::sigemptyset(&one);
    ::sigaddset(&one, SIGUSR2);
    ::sigprocmask(SIG_BLOCK, &one, nullptr);
    return output_of(
        "import signal\nprint(signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, signal.pthread_sigmask(signal.SIG_BLOCK, []))\n");
  });
  EXPECT_EQ(output, "True set()\n");
}

/// In a user namespace that allows no further ones. An administrator may set the whole machine so.
TEST_F(SandboxParent, AKernelThatRefusesIsTold) {
  const auto text = in_child([] {
    const unsigned user = ::geteuid(), group = ::getegid();
    if (::unshare(CLONE_NEWUSER) != 0) return std::string("no namespace");
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", format("0 {} 1", user));
    write_text("/proc/self/gid_map", format("0 {} 1", group));
    write_text("/proc/sys/user/max_user_namespaces", "0");
    const auto fault = why_unavailable(python());
    const auto without = run(python(), "print('ran')\n", {}, Isolation::kNone).output;
    try {
      run(python(), "print('ran')\n", {}, Isolation::kSandbox);
    } catch (const Error& error) {
      return format("{} | {} | {} | {}", fault.value_or("none"), kind_name(error.kind()), error.what(), without);
    }
    return std::string("it ran");
  });
  const std::string message =
      "cannot start a sandbox: clone of 'new namespaces' failed: No space left on device; the setting user.max_user_namespaces is 0: set "
      "it "
      "to 1024 (sysctl user.max_user_namespaces=1024, as root)";
  EXPECT_EQ(text, message + " | unsupported | " + message + " | ran\n");
}

TEST_F(SandboxParent, APythonInATemporaryFolderOfTheMachineIsFound) {
  const io::TempFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  io::write_file_atomic(folder / "module.py", "word = 'found'\n");
  std::filesystem::permissions(folder / "module.py", std::filesystem::perms(0644));
  auto interpreter = python();
  interpreter.folders.push_back(folder.path().string());
  const auto output = run(interpreter, "import sys\nsys.path.append('" + folder.path().string() + "')\nimport module\nprint(module.word)\n",
                          {}, Isolation::kSandbox)
                          .output;
  EXPECT_EQ(output, "found\n");
}

TEST_F(SandboxParent, AnInterpreterThatIsNotThereIsTold) {
  EXPECT_ERROR(run({.executable = "/no/such/python"}, "", {}, Isolation::kSandbox), ErrorKind::kUnsupported,
               "execve of '/no/such/python' failed: No such file or directory; the user of the sandbox must be able to read that path");
  EXPECT_ERROR(run({.executable = "/usr/bin/python3", .folders = {"/no/such/folder"}}, "", {}, Isolation::kSandbox),
               ErrorKind::kUnsupported, "open_tree of '/no/such/folder' failed: No such file or directory");
}

}  // namespace
}  // namespace quiver::sandbox
