// Programs of the benchmarks' own solutions, which pass, and wrong ones, which say why they do not.
#include "quiver/recipes/run_programs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "quiver/sandbox/test_support.h"
#include "quiver/tasks/select.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using ::testing::IsEmpty;

class SandboxPrograms : public sandbox::Sandbox {
 protected:
  /// Each program's own reason is `reason`; they run beside each other.
  struct Case {
    std::string program, reason;
  };
  static void expect_reasons(const std::vector<Case>& cases, const sandbox::Limits& limits = {}) {
    std::vector<std::string> programs;
    for (const auto& [program, reason] : cases) programs.push_back(program);
    const auto results = run_programs({.limits = limits}, programs);
    ASSERT_EQ(results.size(), cases.size());
    for (std::size_t i = 0; i < cases.size(); ++i) {
      EXPECT_EQ(results[i].reason, cases[i].reason) << cases[i].program;
      EXPECT_EQ(results[i].has_passed, cases[i].reason == "passed") << cases[i].program;
    }
  }
  /// The same of answers to `add`, which its tests judge.
  static void expect_reasons_of_answers(std::vector<Case> cases) {
    for (auto& [answer, reason] : cases) answer += "\nassert add(2, 3) == 5\nassert add(-1, 1) == 0\n";
    expect_reasons(cases);
  }
};

/// Programs that are run one after another by a single Python, each in a namespace of its own.
std::string together(std::span<const std::string> programs) {
  std::string text;
  for (const auto& program : programs)
    text += "exec(compile(" + nlohmann::json(program).dump() + ", 'solution', 'exec'), {'__name__': '__main__'})\n";
  return text;
}

/// Runs the solutions of a task: some of them as answers are run, and all of them together, since most of the time Python starts.
void expect_solutions_pass(const std::string& name, std::size_t num_rows) {
  constexpr std::size_t kAlone = 40, kTogether = 16;
  const auto task = tasks::select_tasks({.names = name}).at(0);
  ASSERT_EQ(task.examples.size(), num_rows);
  ASSERT_EQ(task.programs.size(), num_rows);
  std::vector<std::string> solutions, programs, ids;
  for (std::size_t i = 0; i < num_rows; ++i)
    solutions.push_back(task.programs[i].before + task.examples[i].targets.at(0) + task.programs[i].after);
  for (std::size_t i = 0; i < num_rows; i += kAlone) {
    programs.push_back(solutions[i]);
    ids.push_back(task.examples[i].id);
  }
  for (std::size_t i = 0; i < num_rows; i += kTogether) {
    programs.push_back(together(std::span(solutions).subspan(i, std::min(kTogether, num_rows - i))));
    ids.push_back(task.examples[i].id + " and those after it");
  }
  const auto results = run_programs({.limits = {.wall_seconds = 60, .cpu_seconds = 60}}, programs);
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_TRUE(results[i].has_passed) << ids[i];
    EXPECT_EQ(results[i].reason, "passed") << ids[i];
  }
}

TEST_F(SandboxPrograms, AllSolutionsOfHumanEvalPass) { expect_solutions_pass("humaneval", 164); }

TEST_F(SandboxPrograms, AllSolutionsOfMbppPass) { expect_solutions_pass("mbpp", 500); }

TEST_F(SandboxPrograms, WrongAnswersSayWhatWasRaised) {
  const std::string code = "exit code 1: ";
  expect_reasons_of_answers({
      {"def add(a, b):\n    return a - b\n", code + "AssertionError"},  // the right type
      {"def add(a, b):\n    a + b\n", code + "AssertionError"},         // None
      {"def add(a, b):\n    yield a + b\n", code + "AssertionError"},
      {"def sum_of(a, b):\n    return a + b\n", code + "NameError: name 'add' is not defined"},
      {"def add(a):\n    return a\n", code + "TypeError: add() takes 1 positional argument but 2 were given"},
      {"def add(a, b):\n    return {}[a]\n", code + "KeyError: 2"},
      {"def add(a, b)\n    return a + b\n", code + "SyntaxError: expected ':'"},
      {"text = '''\ndef add(a, b):\n", code + "SyntaxError: unterminated triple-quoted string literal (detected at line 7)"},
      {"import no_such_module\n", code + "ModuleNotFoundError: No module named 'no_such_module'"},
      {"def add(a, b):\n    return add(b, a)\n", code + "RecursionError: maximum recursion depth exceeded"},
      {"def add(a, b):\n    raise ValueError('grüße\\t' + 'x' * 300)\n",  // 200 bytes, which are plain
       code + "ValueError: gr????e?" + std::string(200 - 20, 'x')},
  });
}

TEST_F(SandboxPrograms, ProgramsThatLeaveBeforeTheirTestsDoNotPass) {
  const std::string early = "it ended before its tests";
  expect_reasons_of_answers({
      {"exit(0)\n", early},
      {"import sys\nsys.exit()\n", early},
      {"import os\nos._exit(0)\n", early},
      {"print('\\nquiver: the tests have run')\nexit(0)\n", early},  // the mark without what is drawn
      {"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'pass'])\n", early},
      {"exit(3)\n", "exit code 3: "},
      {"raise SystemExit('no answer')\n", "exit code 1: no answer"},
  });
}

TEST_F(SandboxPrograms, WhatAnAnswerDoesToItsOutputDoesNotMatter) {
  const std::string add = "def add(a, b):\n    return a + b\n";
  expect_reasons_of_answers({
      {add, "passed"},
      {add + "def print(*words):\n    pass\n", "passed"},
      {add + "import io, sys\nsys.stdout = io.StringIO()\n", "passed"},
      {add + "print('no line end', end='')\n", "passed"},
      {add + "import atexit\natexit.register(print, 'bye')\n", "passed"},  // a line after the tests
  });
}

TEST_F(SandboxPrograms, LimitsEndPrograms) {
  expect_reasons({{"while True:\n    pass\n", "more than 1 s"},
                  {"def numbers():\n    while True:\n        yield 1\nassert sum(numbers()) == 5\n", "more than 1 s"},
                  {"import time\ntime.sleep(60)\n", "more than 1 s"},
                  {"import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n", "more than 1 s"}},
                 {.wall_seconds = 1});
  expect_reasons({{"held = []\nwhile True:\n    held.append(bytearray(1 << 20))\n", "exit code 1: MemoryError"},
                  {"while True:\n    print('x' * 1000)\n", "more than 5000 bytes of output"},
                  {"import ctypes\nctypes.string_at(0)\n", "signal 11"}},
                 {.output_bytes = 5000});
}

TEST_F(SandboxPrograms, WhatLiesOutsideIsOutOfReach) {
  std::string path = std::filesystem::temp_directory_path() / "quiver-programs-XXXXXX";
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  const auto file = std::filesystem::path(path) / "mine.txt";
  std::ofstream(file) << "kept";
  const auto absent = format("exit code 1: FileNotFoundError: [Errno 2] No such file or directory: '{}'", file.string());
  expect_reasons(
      {{"open('" + file.string() + "').read()\n", absent},
       {"import os\nos.remove('" + file.string() + "')\n", absent},
       {"import shutil\nshutil.rmtree('" + path + "', ignore_errors=True)\n", "passed"},
       {"import socket\nsocket.create_connection(('127.0.0.1', 9), 1)\n", "exit code 1: OSError: [Errno 101] Network is unreachable"}});
  EXPECT_EQ(std::filesystem::file_size(file), 4u);
  std::filesystem::remove_all(path);
}

TEST_F(SandboxPrograms, ResultsStandInTheOrderOfPrograms) {
  std::vector<std::string> programs;
  for (int i = 0; i < 5; ++i) programs.push_back(format("import time\ntime.sleep({})\nexit({})\n", i % 3 == 0 ? 0.3 : 0.0, i + 1));
  for (const int threads : {0, 5}) {
    const auto results = run_programs({.num_threads = threads}, programs);
    ASSERT_EQ(results.size(), programs.size());
    for (int i = 0; i < 5; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)].reason, format("exit code {}: ", i + 1)) << threads;
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
