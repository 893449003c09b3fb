// Shared by the tests of this folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "quiver/base/error.h"
#include "quiver/sandbox/sandbox.h"
#include "quiver/testing/message_of.h"

namespace quiver::sandbox {

inline const Interpreter& python() {
  static const Interpreter interpreter = find_interpreter("python3");
  return interpreter;
}

/// Whether the kernel gives this process namespaces and mounts at all. Asked without the code under test: its faults must not skip its
/// tests.
inline bool kernel_has_namespaces() {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_given = ::unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0 &&
                          ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                          ::mount("tmpfs", "/usr", "tmpfs", 0, nullptr) == 0;
    ::_exit(is_given ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  return status == 0;
}

/// A test in the sandbox, skipped where the kernel allows none.
class Sandbox : public ::testing::Test {
 protected:
  void SetUp() override {
    static const auto fault = why_unavailable(python());
    static const bool is_possible = kernel_has_namespaces();
    if (!fault) return;
    ASSERT_FALSE(is_possible) << *fault;
    GTEST_SKIP() << *fault;
  }
  /// Runs a program in the sandbox.
  static Outcome outcome_of(const std::string& program, const Limits& limits = {}) {
    return run(python(), program, limits, Isolation::kSandbox);
  }
  static std::string output_of(const std::string& program, const Limits& limits = {}) { return outcome_of(program, limits).output; }
};

/// A name that a program gives itself, so that its processes can be counted from outside.
inline std::string new_mark() {
  static int count = 0;
  return format("qs{}-{}", ::getpid() % 100000, ++count);
}

/// The lines by which a Python program gives itself this name.
inline std::string take_mark(const std::string& mark) { return "import ctypes\nctypes.CDLL(None).prctl(15, b'" + mark + "', 0, 0, 0)\n"; }

/// Processes of this machine with the name, in all namespaces.
inline int num_marked(const std::string& mark) {
  int count = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    std::ifstream file(entry.path() / "comm");
    std::string name;
    if (std::getline(file, name) && name == mark) ++count;
  }
  return count;
}

/// Waits for what another process does; false after ten seconds.
template <typename Condition>
bool comes_true(Condition condition) {
  using namespace std::chrono_literals;
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

}  // namespace quiver::sandbox
