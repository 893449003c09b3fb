// Generated programs, run beside each other in the sandbox.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quiver/sandbox/sandbox.h"

namespace quiver::recipes {

/// How generated programs are run.
struct ProgramRunner {
  std::string python = "python3";
  sandbox::Isolation isolation = sandbox::Isolation::kSandbox;
  sandbox::Limits limits = {};
  int num_threads = 0;  ///< programs at a time; 0: as many as the process may use cores
};

/// Throws, before any work, where programs cannot be run: kNotFound for a Python that is not there, kUnsupported where the kernel allows no
/// sandbox, saying what is to be done.
void check_can_run(const ProgramRunner& runner);

/// What came of a program.
struct ProgramResult {
  bool has_passed = false;
  std::string reason;  ///< "passed", "exit code 1: AssertionError", "more than 10 s"
};

/// Runs programs, several at a time, each alone in a sandbox of its own. Results in order. Throws as sandbox::run.
std::vector<ProgramResult> run_programs(const ProgramRunner& runner, std::span<const std::string> programs);

}  // namespace quiver::recipes
