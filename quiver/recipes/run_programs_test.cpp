// Programs of the benchmarks' own solutions, which pass, and wrong ones, which say why they do not.
#include "quiver/recipes/run_programs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "quiver/tasks/select.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using ::testing::IsEmpty;

/// Whether the kernel gives this process namespaces and mounts at all, asked without the code under test.
bool kernel_has_namespaces() {
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

/// Skipped where the kernel allows no sandbox; the name is one that tests/allowed_skips.txt knows.
class SandboxPrograms : public ::testing::Test {
 protected:
  void SetUp() override {
    static const auto fault = sandbox::why_unavailable(sandbox::find_interpreter());
    static const bool is_possible = kernel_has_namespaces();
    if (!fault) return;
    ASSERT_FALSE(is_possible) << *fault;
    GTEST_SKIP() << *fault;
  }

  static std::string reason_of(const std::string& program, const sandbox::Limits& limits = {}) {
    const auto results = run_programs({.limits = limits}, std::vector{program});
    EXPECT_EQ(results.size(), 1u);
    EXPECT_EQ(results.at(0).has_passed, results.at(0).reason == "passed");
    return results.at(0).reason;
  }
  /// Of a wrong answer to `add`, which its tests judge.
  static std::string reason_of_answer(const std::string& answer, const sandbox::Limits& limits = {}) {
    return reason_of(answer + "\nassert add(2, 3) == 5\nassert add(-1, 1) == 0\n", limits);
  }
};

/// The rows of a task whose own solution does not pass.
std::vector<std::string> failures_of_solutions(const std::string& name, std::size_t num_rows) {
  const auto task = tasks::select_tasks({.names = name}).at(0);
  EXPECT_EQ(task.examples.size(), num_rows);
  EXPECT_EQ(task.programs.size(), num_rows);
  std::vector<std::string> programs, failures;
  for (std::size_t i = 0; i < task.programs.size(); ++i)
    programs.push_back(task.programs[i].before + task.examples[i].targets.at(0) + task.programs[i].after);
  const auto results = run_programs({.limits = {.wall_seconds = 60, .cpu_seconds = 60}}, programs);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!results[i].has_passed || results[i].reason != "passed") failures.push_back(task.examples[i].id + ": " + results[i].reason);
  }
  return failures;
}

TEST_F(SandboxPrograms, AllSolutionsOfHumanEvalPass) { EXPECT_THAT(failures_of_solutions("humaneval", 164), IsEmpty()); }

TEST_F(SandboxPrograms, AllSolutionsOfMbppPass) { EXPECT_THAT(failures_of_solutions("mbpp", 500), IsEmpty()); }

TEST_F(SandboxPrograms, WrongAnswersSayWhatWasRaised) {
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    return a - b\n"), "exit code 1: AssertionError") << "the right type";
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    a + b\n"), "exit code 1: AssertionError") << "None";
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    yield a + b\n"), "exit code 1: AssertionError") << "a generator";
  EXPECT_EQ(reason_of_answer("def sum_of(a, b):\n    return a + b\n"), "exit code 1: NameError: name 'add' is not defined");
  EXPECT_EQ(reason_of_answer("def add(a):\n    return a\n"), "exit code 1: TypeError: add() takes 1 positional argument but 2 were given");
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    return a // (b - 3)\n"),
            "exit code 1: ZeroDivisionError: integer division or modulo by zero");
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    return {}[a]\n"), "exit code 1: KeyError: 2");
  EXPECT_EQ(reason_of_answer("def add(a, b)\n    return a + b\n"), "exit code 1: SyntaxError: expected ':'");
  EXPECT_EQ(reason_of_answer("import no_such_module\n"), "exit code 1: ModuleNotFoundError: No module named 'no_such_module'");
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    return add(b, a)\n"), "exit code 1: RecursionError: maximum recursion depth exceeded");
  EXPECT_EQ(reason_of_answer("def add(a, b):\n    raise ValueError('grüße\\t' + 'x' * 300)\n"),
            "exit code 1: ValueError: gr??" + std::string("??e?") + std::string(200 - 21, 'x'))
      << "200 bytes of plain characters, at most";
}

TEST_F(SandboxPrograms, ProgramsThatLeaveBeforeTheirTestsDoNotPass) {
  const std::string early = "it ended before its tests";
  EXPECT_EQ(reason_of_answer("exit(0)\n"), early);
  EXPECT_EQ(reason_of_answer("import sys\nsys.exit()\n"), early);
  EXPECT_EQ(reason_of_answer("import os\nos._exit(0)\n"), early);
  EXPECT_EQ(reason_of_answer("print('\\nquiver: the tests have run')\nexit(0)\n"), early) << "the mark without what is drawn";
  EXPECT_EQ(reason_of_answer("import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'pass'])\n"), early);
  EXPECT_EQ(reason_of_answer("exit(3)\n"), "exit code 3: ");
  EXPECT_EQ(reason_of_answer("raise SystemExit('no answer')\n"), "exit code 1: no answer");
}

TEST_F(SandboxPrograms, WhatAnAnswerDoesToItsOutputDoesNotMatter) {
  const std::string add = "def add(a, b):\n    return a + b\n";
  EXPECT_EQ(reason_of_answer(add), "passed");
  EXPECT_EQ(reason_of_answer(add + "def print(*words):\n    pass\n"), "passed");
  EXPECT_EQ(reason_of_answer(add + "import io, sys\nsys.stdout = io.StringIO()\n"), "passed");
  EXPECT_EQ(reason_of_answer(add + "print('no line end', end='')\n"), "passed");
  EXPECT_EQ(reason_of_answer(add + "import atexit\natexit.register(print, 'bye')\n"), "passed") << "a line after the tests";
}

TEST_F(SandboxPrograms, LimitsEndPrograms) {
  const std::vector<std::string> programs = {
      "while True:\n    pass\n", "def numbers():\n    while True:\n        yield 1\nassert sum(numbers()) == 5\n",
      "import time\ntime.sleep(60)\n", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"};
  const auto results = run_programs({.limits = {.wall_seconds = 1}}, programs);
  for (const auto& result : results) {
    EXPECT_FALSE(result.has_passed);
    EXPECT_EQ(result.reason, "more than 1 s");
  }
  EXPECT_EQ(reason_of("held = []\nwhile True:\n    held.append(bytearray(1 << 20))\n"), "exit code 1: MemoryError");
  EXPECT_EQ(reason_of("while True:\n    print('x' * 1000)\n", {.output_bytes = 5000}), "more than 5000 bytes of output");
  EXPECT_EQ(reason_of("import ctypes\nctypes.string_at(0)\n"), "signal 11");
  EXPECT_EQ(reason_of("import os\nos.abort()\n"), "signal 6");
}

TEST_F(SandboxPrograms, WhatLiesOutsideIsOutOfReach) {
  std::string path = std::filesystem::temp_directory_path() / "quiver-programs-XXXXXX";
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  const auto file = std::filesystem::path(path) / "mine.txt";
  std::ofstream(file) << "kept";
  const auto absent = format("exit code 1: FileNotFoundError: [Errno 2] No such file or directory: '{}'", file.string());
  EXPECT_EQ(reason_of("open('" + file.string() + "').read()\n"), absent);
  EXPECT_EQ(reason_of("import os\nos.remove('" + file.string() + "')\n"), absent);
  EXPECT_EQ(reason_of("import shutil\nshutil.rmtree('" + path + "', ignore_errors=True)\n"), "passed");
  EXPECT_EQ(std::filesystem::file_size(file), 4u);
  std::filesystem::remove_all(path);
  EXPECT_EQ(reason_of("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)\n"), "?");
}

TEST_F(SandboxPrograms, ResultsStandInTheOrderOfPrograms) {
  std::vector<std::string> programs;
  for (int i = 0; i < 12; ++i) programs.push_back(format("import time\ntime.sleep({})\nexit({})\n", i % 3 == 0 ? 0.3 : 0.0, i + 1));
  for (const int threads : {0, 1, 5}) {
    const auto results = run_programs({.num_threads = threads}, programs);
    ASSERT_EQ(results.size(), programs.size());
    for (int i = 0; i < 12; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)].reason, format("exit code {}: ", i + 1)) << threads;
  }
  EXPECT_THAT(run_programs({}, {}), IsEmpty());
}

TEST(Programs, AMissingPythonIsToldBeforeAnyWork) {
  const ProgramRunner runner{.python = "no-such-python", .isolation = sandbox::Isolation::kNone};
  EXPECT_ERROR(check_can_run(runner), ErrorKind::kNotFound, "there is no program 'no-such-python' in PATH");
  EXPECT_ERROR(run_programs(runner, std::vector<std::string>{"pass"}), ErrorKind::kNotFound, "there is no program 'no-such-python'");
}

TEST(Programs, WithoutASandboxTheyAreJudgedAlike) {
  const ProgramRunner runner{.isolation = sandbox::Isolation::kNone};
  check_can_run(runner);
  const auto results = run_programs(runner, std::vector<std::string>{"assert 1 + 1 == 2\n", "assert 1 + 1 == 3\n", "exit(0)\n"});
  EXPECT_EQ(results[0].reason, "passed");
  EXPECT_EQ(results[1].reason, "exit code 1: AssertionError");
  EXPECT_EQ(results[2].reason, "it ended before its tests");
}

TEST(Programs, LimitsOutOfTheirRangesAreRefused) {
  EXPECT_ERROR(run_programs({.isolation = sandbox::Isolation::kNone, .limits = {.wall_seconds = 0}}, std::vector<std::string>{"pass"}),
               ErrorKind::kUsage, "wall_seconds");
}

}  // namespace
}  // namespace quiver::recipes
