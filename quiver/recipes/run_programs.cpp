#include "quiver/recipes/run_programs.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <random>
#include <string_view>
#include <thread>

#include "quiver/base/cores.h"
#include "quiver/base/error.h"

namespace quiver::recipes {
namespace {

constexpr std::size_t kMostReason = 200;  // bytes

/// The last line that says something: of a Python traceback the exception.
std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  const auto begin = text.rfind('\n');
  auto line = text.substr(begin == std::string_view::npos ? 0 : begin + 1);
  line = line.substr(0, kMostReason);
  std::string plain;
  for (const char c : line) plain += static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c;
  return plain;
}

/// What a program says at its end: one that leaves before its tests, with exit code 0, does not say it. Another one each time, so that no
/// program says it by chance or by heart.
std::string new_end_mark() {
  std::random_device device;
  std::string mark = "quiver: the tests have run";
  for (int i = 0; i < 4; ++i) mark += format(" {:08x}", device());
  return mark;
}

/// The program, which says the mark after its tests, whatever it made of print and of sys.stdout.
std::string with_end(const std::string& program, const std::string& mark) {
  return program + format("\n__import__('os').write(1, b'\\n{}\\n')\n", mark);
}

ProgramResult result_of(const sandbox::Outcome& outcome, const sandbox::Limits& limits, const std::string& end_mark) {
  if (outcome.is_success()) {
    const bool has_ended = outcome.output.find(end_mark) != std::string::npos;
    return has_ended ? ProgramResult{true, "passed"} : ProgramResult{false, "it ended before its tests"};
  }
  switch (outcome.ending) {
    case sandbox::Ending::kTime: return {false, format("more than {} s", limits.wall_seconds)};
    case sandbox::Ending::kOutput: return {false, format("more than {} bytes of output", limits.output_bytes)};
    case sandbox::Ending::kSignal: return {false, format("signal {}", outcome.signal)};
    case sandbox::Ending::kExited: break;
  }
  return {false, format("exit code {}: {}", outcome.exit_code, last_line(outcome.output))};
}

}  // namespace

void check_can_run(const ProgramRunner& runner) {
  const auto interpreter = sandbox::find_interpreter(runner.python);
  if (runner.isolation == sandbox::Isolation::kNone) return;
  if (const auto why = sandbox::why_unavailable(interpreter)) {
    fail(ErrorKind::kUnsupported, "generated programs cannot be run: {}; `isolation` runs them without a sandbox, with all that you may do",
         *why);
  }
}

std::vector<ProgramResult> run_programs(const ProgramRunner& runner, std::span<const std::string> programs) {
  const auto interpreter = sandbox::find_interpreter(runner.python);
  const auto mark = new_end_mark();
  std::vector<ProgramResult> results(programs.size());
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (auto i = next++; i < programs.size(); i = next++)
        results[i] =
            result_of(sandbox::run(interpreter, with_end(programs[i], mark), runner.limits, runner.isolation), runner.limits, mark);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (error == nullptr) error = std::current_exception();
      next = programs.size();
    }
  };
  const auto wanted = runner.num_threads > 0 ? runner.num_threads : usable_cores();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min(static_cast<std::size_t>(wanted), programs.size()); ++i) threads.emplace_back(work);
  for (auto& thread : threads) thread.join();
  if (error != nullptr) std::rethrow_exception(error);
  return results;
}

}  // namespace quiver::recipes
