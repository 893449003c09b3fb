// What programs give that mean no harm, and what the limits do.
#include "quiver/sandbox/sandbox.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"
#include "quiver/sandbox/test_support.h"

namespace quiver::sandbox {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(Sandbox, GivesOutputAndSuccess) {
  const auto outcome = outcome_of("import sys\nprint('hello', flush=True)\nprint('grüße', file=sys.stderr)\n");
  EXPECT_EQ(outcome.output, "hello\ngrüße\n");
  EXPECT_EQ(outcome.ending, Ending::kExited);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.is_success());
  EXPECT_GT(outcome.seconds, 0);
  EXPECT_GT(outcome.cpu_seconds, 0);
}

TEST_F(Sandbox, AnEmptyProgramSucceeds) {
  const auto outcome = outcome_of("");
  EXPECT_TRUE(outcome.is_success());
  EXPECT_THAT(outcome.output, IsEmpty());
}

TEST_F(Sandbox, GivesTheExitCode) {
  const auto outcome = outcome_of("import sys\nsys.exit(7)\n");
  EXPECT_EQ(outcome.ending, Ending::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_FALSE(outcome.is_success());
}

TEST_F(Sandbox, AFailedAssertionSaysWhere) {
  const auto outcome = outcome_of("def f():\n    return 3\n\nassert f() == 4, 'wrong sum'\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("program.py\", line 4"));
  EXPECT_THAT(outcome.output, HasSubstr("AssertionError: wrong sum"));
}

TEST_F(Sandbox, ASyntaxErrorIsTold) {
  const auto outcome = outcome_of("def f(:\n");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("SyntaxError"));
}

TEST_F(Sandbox, ACrashIsASignal) {
  const auto outcome = outcome_of("import ctypes\nctypes.string_at(0)\n");
  EXPECT_EQ(outcome.ending, Ending::kSignal);
  EXPECT_EQ(outcome.signal, SIGSEGV);
  EXPECT_FALSE(outcome.is_success());
}

TEST_F(Sandbox, TheStandardLibraryWorks) {
  EXPECT_EQ(output_of(R"(
import collections, concurrent.futures, json, math, multiprocessing, re, subprocess, tempfile, threading
with tempfile.TemporaryFile() as f:
    f.write(b"kept")
    f.seek(0)
    print(f.read())
print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout, end="")
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(list(pool.map(math.sqrt, [4, 9])))
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
)"),
            "b'kept'\nchild\n[2.0, 3.0]\n[1, 2]\n");
}

TEST_F(Sandbox, SetsOfStringsHaveOneOrder) {
  const std::string program = "print({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})\n";
  EXPECT_EQ(output_of(program), output_of(program));
}

TEST_F(Sandbox, StdinIsEmpty) { EXPECT_EQ(output_of("import sys\nprint(repr(sys.stdin.read()))\n"), "''\n"); }

TEST_F(Sandbox, AnEndlessLoopEndsAtItsTime) {
  const auto outcome = outcome_of("while True:\n    pass\n", {.wall_seconds = 0.5});
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_EQ(outcome.signal, SIGKILL);
  EXPECT_GE(outcome.seconds, 0.5);
  EXPECT_LT(outcome.seconds, 5);
}

TEST_F(Sandbox, OutputBeforeTheEndOfTimeIsKept) {
  const auto outcome = outcome_of("import time\nprint('so far', flush=True)\ntime.sleep(60)\n", {.wall_seconds = 1});
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_EQ(outcome.output, "so far\n");
}

TEST_F(Sandbox, TimeOfTheProcessorIsLimited) {
  const auto outcome = outcome_of("while True:\n    pass\n", {.wall_seconds = 60, .cpu_seconds = 1});
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_GT(outcome.cpu_seconds, 0.75);
  EXPECT_LT(outcome.cpu_seconds, 3);
  EXPECT_LT(outcome.seconds, 50);
}

TEST_F(Sandbox, EndlessOutputEndsAtItsLimit) {
  const auto outcome = outcome_of("while True:\n    print('y' * 1000)\n", {.wall_seconds = 60, .output_bytes = 5000});
  EXPECT_EQ(outcome.ending, Ending::kOutput);
  EXPECT_EQ(outcome.output.size(), 5000);
  EXPECT_LT(outcome.seconds, 30);
}

TEST_F(Sandbox, OutputOfExactlyTheLimitIsNoFault) {
  const auto outcome = outcome_of("print('y' * 4999)\n", {.output_bytes = 5000});
  EXPECT_TRUE(outcome.is_success());
  EXPECT_EQ(outcome.output.size(), 5000);
}

TEST_F(Sandbox, OneByteTooMuchIsAFaultOfAProgramThatHasEnded) {
  const auto outcome = outcome_of("print('y' * 5000)\n", {.output_bytes = 5000});
  EXPECT_EQ(outcome.ending, Ending::kOutput);
  EXPECT_EQ(outcome.output, std::string(5000, 'y'));
  EXPECT_FALSE(outcome.is_success());
}

TEST_F(Sandbox, AProgramThatClosesItsStreamsStillEndsAtItsTime) {
  const auto outcome = outcome_of("import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)\n", {.wall_seconds = 1});
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_LT(outcome.seconds, 10);
}

TEST_F(Sandbox, AGrandchildThatHoldsStdoutEndsWithTheProgram) {
  const auto mark = new_mark();
  const auto outcome = outcome_of(take_mark(mark) + R"(
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
print("done")
)",
                                  {.wall_seconds = 30});
  EXPECT_TRUE(outcome.is_success());
  EXPECT_EQ(outcome.output, "done\n");
  EXPECT_LT(outcome.seconds, 15);
  EXPECT_EQ(num_marked(mark), 0);
}

TEST_F(Sandbox, ManyThreadsRunProgramsSideBySide) {
  constexpr int kThreads = 4, kRuns = 8;
  std::array<std::array<std::string, kRuns>, kThreads> outputs;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&outputs, t] {
        for (int i = 0; i < kRuns; ++i) outputs[t][i] = output_of(format("print('thread {} run {}')\n", t, i));
      });
    }
  }
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kRuns; ++i) EXPECT_EQ(outputs[t][i], format("thread {} run {}\n", t, i));
  }
}

TEST_F(Sandbox, AStopEndsTheProgram) {
  std::atomic<bool> flag = false;
  const auto mark = new_mark();
  const std::jthread stopper([&] {
    comes_true([&] { return num_marked(mark) > 0; });
    flag = true;
  });
  EXPECT_ERROR(run(python(), take_mark(mark) + "import time\ntime.sleep(60)\n", {.wall_seconds = 50}, Isolation::kSandbox, StopToken(flag)),
               ErrorKind::kInterrupted, "while a generated program ran");
  EXPECT_EQ(num_marked(mark), 0);
}

TEST_F(Sandbox, LeavesNothingOpenAndNoChild) {
  const auto num_descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = num_descriptors();
  outcome_of("print(1)\n");
  EXPECT_EQ(num_descriptors(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SandboxLimits, AreChecked) {
  const auto error_of = [](const Limits& limits) { return run({.executable = "/bin/true"}, "", limits, Isolation::kSandbox); };
  EXPECT_ERROR(error_of({.wall_seconds = 0}), ErrorKind::kUsage, "wall_seconds is 0; expected more than 0");
  EXPECT_ERROR(error_of({.cpu_seconds = -1}), ErrorKind::kUsage, "cpu_seconds is -1");
  EXPECT_ERROR(error_of({.memory_bytes = 0}), ErrorKind::kUsage, "memory_bytes is 0");
  EXPECT_ERROR(error_of({.processes = 0}), ErrorKind::kUsage, "processes is 0; expected 1 to");
  EXPECT_ERROR(error_of({.file_bytes = 0}), ErrorKind::kUsage, "file_bytes is 0; expected 4096 to");
  EXPECT_ERROR(error_of({.output_bytes = -1}), ErrorKind::kUsage, "output_bytes is -1; expected 0 to");
}

TEST(FindInterpreter, KnowsWherePythonIs) {
  EXPECT_TRUE(python().executable.starts_with('/'));
  EXPECT_TRUE(python().version.starts_with("3."));
}

TEST(FindInterpreter, RefusesWhatIsNoPython) {
  EXPECT_ERROR(find_interpreter("no-such-python"), ErrorKind::kNotFound, "there is no program 'no-such-python' in PATH");
  EXPECT_ERROR(find_interpreter("/no/such/python"), ErrorKind::kNotFound, "there is no program '/no/such/python'");
  EXPECT_ERROR(find_interpreter("/bin/true"), ErrorKind::kIo, "does not answer as Python 3 does: exit code 0");
}

TEST(FindInterpreter, RefusesAFolderThatHoldsTheHome) {
  const io::TempFolder folder;
  const std::string answer = folder / "python", home = folder / "home", own = folder / "own";
  const std::string reply = "#!/bin/sh\nprintf 'noise\\n/x/python\\0003.9.1\\000" + own + "\\000/usr\\000'\n";
  const std::string bad_reply = "#!/bin/sh\nprintf '\\n/x/python\\0003.9.1\\000" + folder.path().string() + "'\n";
  const auto find = [&](const std::string& text) {
    io::write_file_atomic(answer, text);
    std::filesystem::permissions(answer, std::filesystem::perms(0755));
    return find_interpreter(answer);
  };
  const std::string before = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  ::setenv("HOME", home.c_str(), 1);
  const auto found = find(reply);
  EXPECT_ERROR(find(bad_reply), ErrorKind::kUnsupported, "holds the home folder '" + home + "', which programs would read");
  ::setenv("HOME", before.c_str(), 1);
  EXPECT_EQ(found.executable, "/x/python");
  EXPECT_EQ(found.version, "3.9.1");
  EXPECT_EQ(found.folders, std::vector<std::string>{own});
}

TEST(WithoutASandbox, ProgramsRunWithinLimits) {
  const auto success = run(python(), "import os\nprint(sorted(os.listdir('.')))\n", {}, Isolation::kNone);
  EXPECT_EQ(success.output, "['program.py']\n");
  EXPECT_TRUE(success.is_success());
  const auto endless = run(python(), "while True:\n    pass\n", {.wall_seconds = 0.5}, Isolation::kNone);
  EXPECT_EQ(endless.ending, Ending::kTime);
  EXPECT_LT(endless.seconds, 5);
  const auto greedy = run(python(), "bytearray(1 << 31)\n", {}, Isolation::kNone);
  EXPECT_THAT(greedy.output, HasSubstr("MemoryError"));
}

TEST(WithoutASandbox, ItsFolderAndItsProcessesGo) {
  const auto mark = new_mark();
  const auto outcome = run(python(), take_mark(mark) + R"(
import os, time
print(os.getcwd(), flush=True)
if os.fork() == 0:
    time.sleep(60)
os._exit(3)
)",
                           {}, Isolation::kNone);
  EXPECT_EQ(outcome.exit_code, 3);
  ASSERT_THAT(outcome.output, HasSubstr("quiver-program-"));
  EXPECT_FALSE(std::filesystem::exists(outcome.output.substr(0, outcome.output.find('\n'))));
  EXPECT_TRUE(comes_true([&] { return num_marked(mark) == 0; }));
}

TEST(WithoutASandbox, AMissingInterpreterIsTold) {
  EXPECT_ERROR(run({.executable = "/no/such/python"}, "", {}, Isolation::kNone), ErrorKind::kNotFound,
               "execve of '/no/such/python' failed: No such file or directory");
}

}  // namespace
}  // namespace quiver::sandbox
